// Tensors as the tests send them, and how an op's bindings join the module.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "guarded.h"

namespace cuda_on_host {

// A tensor in memory of its own, which holds the bytes that its strides span and no more, so that the
// sanitizer sees every access beside them.
class Array {
 public:
  // `misalignment` is the address of the first element modulo 16.
  Array(std::string dtype, std::vector<int64_t> sizes, std::vector<int64_t> strides, const std::string& bytes,
        size_t misalignment)
      : dtype(std::move(dtype)),
        sizes(std::move(sizes)),
        strides(std::move(strides)),
        memory_(bytes.size(), misalignment) {
    memcpy(data(), bytes.data(), bytes.size());
  }

  void* data() const { return memory_.data(); }

  pybind11::bytes bytes() const { return {memory_.as<char>(), memory_.bytes()}; }

  const std::string dtype;
  const std::vector<int64_t> sizes, strides;  // strides in elements

 private:
  Guarded memory_;
};

// Adds functions to the module: a constant of this type in each file of bindings.
struct Bindings {
  using Add = void (*)(pybind11::module_& module);
  explicit Bindings(Add add) { all().push_back(add); }
  static std::vector<Add>& all() {
    static std::vector<Add> all;
    return all;
  }
};

inline void raise_if(const char* error) {
  if (error) throw std::runtime_error(error);
}

}  // namespace cuda_on_host
