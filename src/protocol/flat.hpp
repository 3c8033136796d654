// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What encode and decode share over FlatBuffers: opening a buffer that came from a peer,
// and copying columns out of it within a budget. Internal to this folder.
#pragma once

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/fmt.hpp"
#include "base/result.hpp"
#include "protocol/wire_generated.h"

namespace towline::protocol {

// Bits of must_understand that this version knows: none yet.
inline constexpr uint32_t kUnderstood = 0;
inline constexpr flatbuffers::uoffset_t kMaxDepth = 16;
inline constexpr flatbuffers::uoffset_t kMaxTables = 1 << 20;

// Offsets may point to one thing many times, so the copy of a small message could be huge. What a
// message may unfold to is bounded by its own size.
class Budget {
 public:
  explicit Budget(size_t message_bytes) : left_(message_bytes * 16 + (size_t{1} << 14)) {}
  bool take(size_t bytes) {
    if (bytes > left_) return false;
    left_ -= bytes;
    return true;
  }
  static Error exceeded() {
    return Error(Code::kDataCorrupt, "the message unfolds to far more than its own size");
  }

 private:
  size_t left_;
};

// A verified root, and the aligned copy it points into if the bytes were not aligned.
template <class Table>
struct Opened {
  const Table* root = nullptr;
  std::vector<uint64_t> aligned;
};

template <class Table>
Result<Opened<Table>> open(std::span<const uint8_t> bytes, const char* what) {
  Opened<Table> out;
  const uint8_t* data = bytes.data();
  if (reinterpret_cast<uintptr_t>(data) % alignof(uint64_t) != 0) {
    out.aligned.resize(bytes.size() / sizeof(uint64_t) + 1);
    std::memcpy(out.aligned.data(), data, bytes.size());
    data = reinterpret_cast<const uint8_t*>(out.aligned.data());
  }
  const auto well_formed = [&] {
    flatbuffers::Verifier verifier(data, bytes.size(), kMaxDepth, kMaxTables);
    return verifier.VerifyBuffer<Table>(nullptr);
  };
  // The library asserts, rather than tests, that a buffer is not too large.
  if (bytes.size() < 8 || bytes.size() >= FLATBUFFERS_MAX_BUFFER_SIZE || !well_formed()) {
    return errorf(Code::kDataCorrupt, "a {} of {} bytes is not well-formed", what, bytes.size());
  }
  out.root = flatbuffers::GetRoot<Table>(data);
  const uint32_t unknown = out.root->must_understand() & ~kUnderstood;
  if (unknown != 0) {
    return errorf(Code::kUnsupported, "a {} needs features {:#x} that this build does not know",
                  what, unknown);
  }
  return out;
}

// A column of scalars, or nothing where the field is absent.
template <class T, class U>
Result<void> copy(const flatbuffers::Vector<U>* from, std::vector<T>& to, Budget& budget) {
  static_assert(sizeof(T) == sizeof(U));
  to.clear();
  if (from == nullptr) return {};
  if (!budget.take(from->size() * sizeof(T))) return Budget::exceeded();
  to.resize(from->size());
  if (!to.empty()) std::memcpy(to.data(), from->data(), to.size() * sizeof(T));
  return {};
}

inline Result<void> copy(const flatbuffers::String* from, std::string& to, Budget& budget) {
  to.clear();
  if (from == nullptr) return {};
  if (!budget.take(from->size())) return Budget::exceeded();
  to.assign(from->c_str(), from->size());
  return {};
}

template <class T>
size_t size_of(const flatbuffers::Vector<T>* v) {
  return v == nullptr ? 0 : v->size();
}

// Offset 0 (an absent field) for what is empty.
template <class T>
flatbuffers::Offset<flatbuffers::Vector<T>> column(flatbuffers::FlatBufferBuilder& b,
                                                   const std::vector<T>& values) {
  return values.empty() ? 0 : b.CreateVector(values);
}
inline flatbuffers::Offset<flatbuffers::String> text(flatbuffers::FlatBufferBuilder& b,
                                                     const std::string& value) {
  return value.empty() ? 0 : b.CreateString(value);
}

template <class Table>
std::vector<uint8_t> finish(flatbuffers::FlatBufferBuilder& b, flatbuffers::Offset<Table> root) {
  b.Finish(root);
  return {b.GetBufferPointer(), b.GetBufferPointer() + b.GetSize()};
}

}  // namespace towline::protocol
