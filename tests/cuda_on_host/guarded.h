// Memory that nothing may be accessed beside, far beyond the few bytes that the sanitizer leaves between
// allocations: a kernel that is a whole row or frame off would else read another array, unnoticed. (The
// sanitizer knows words of 8 bytes: those of the first that lie before a misaligned begin are not guarded.)
#pragma once

#include <sanitizer/asan_interface.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace cuda_on_host {

class Guarded {
 public:
  // Bytes 0xff (NaN), from an address of this misalignment modulo 16 on.
  explicit Guarded(size_t bytes, size_t misalignment = 0)
      : memory_(static_cast<unsigned char*>(malloc(kGuard + misalignment + bytes + kGuard)), free),
        data_(memory_.get() + kGuard + misalignment),
        bytes_(bytes) {
    __asan_poison_memory_region(memory_.get(), kGuard + misalignment);
    __asan_poison_memory_region(data_ + bytes, kGuard);
    memset(data_, 0xff, bytes);
  }

  unsigned char* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  static constexpr size_t kGuard = 64 * 1024;

  std::shared_ptr<unsigned char> memory_;
  unsigned char* data_;
  size_t bytes_;
};

}  // namespace cuda_on_host
