#define DCNV3_LEVEL v3
#include "kernels_impl.h"

namespace dcnv3 {
extern const Kernels kKernels_v3 = {"v3", v3::forward_scratch, v3::forward};
}
