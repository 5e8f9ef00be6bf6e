// Text of an error, made without memory and so without exceptions.
#pragma once

#include <cstdarg>
#include <cstdio>

namespace dcnv3 {

struct Message {
  char text[256] = "";

  // As printf; returns the text. (The object itself is the attribute's first argument.)
  __attribute__((format(printf, 2, 3))) const char* set(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return text;
  }
};

}  // namespace dcnv3
