// Choice of the instruction-set level.
#pragma once

#include "kernels.h"

namespace dcnv3 {

// The kernels in use: the highest level that the CPU has, or the one set last.
const Kernels& kernels();

}  // namespace dcnv3
