#define DCNV3_LEVEL v4
#include "kernels_impl.h"

namespace dcnv3 {
extern const Kernels kKernels_v4 = {"v4", v4::forward_scratch, v4::forward};
}
