#define DCNV3_LEVEL v2
#include "kernels_impl.h"

namespace dcnv3 {
extern const Kernels kKernels_v2 = {"v2", v2::forward_scratch, v2::forward};
}
