// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#include "base/fmt.hpp"
#include "engine/format/gguf.hpp"
#include "engine/format/model_shape.hpp"

namespace towline::engine {
namespace {

struct MetaEntry {
  std::string key;
  MetaValue value;
  std::span<const std::byte> bytes;
};

struct TensorEntry {
  std::string name;
  DType dtype = DType::kF32;
  int64_t rows = 1, cols = 0;
  uint64_t offset = 0;  // from the start of the data section
};

// Walks the header of one file. Every read is bounded by the file's size.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  size_t at() const { return at_; }
  size_t left() const { return bytes_.size() - at_; }
  std::span<const std::byte> since(size_t begin) const {
    return bytes_.subspan(begin, at_ - begin);
  }

  Error truncated(size_t wanted, std::string_view what) const {
    return errorf(Code::kDataCorrupt,
                  "the file ends inside {}: {} bytes are needed at offset {}, {} are left", what,
                  wanted, at_, left());
  }

  template <class T>
  Result<T> number(std::string_view what) {
    if (left() < sizeof(T)) return truncated(sizeof(T), what);
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  Result<std::string_view> text(std::string_view what, int64_t most = INT64_MAX) {
    ASSIGN_OR_RETURN(const uint64_t length, number<uint64_t>(what));
    if (length > left()) return truncated(length, what);
    if (length > static_cast<uint64_t>(most)) {
      return errorf(Code::kDataCorrupt, "{} at offset {} is {} bytes long; at most {} are allowed",
                    what, at_, length, most);
    }
    const auto* begin = reinterpret_cast<const char*>(bytes_.data() + at_);
    at_ += length;
    return std::string_view(begin, length);
  }

 private:
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
};

// Bytes of a fixed-size value; 0 for strings, arrays and unknown types.
size_t value_bytes(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool: return 1;
    case GgufType::kU16:
    case GgufType::kI16: return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32: return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64: return 8;
    case GgufType::kString:
    case GgufType::kArray: return 0;
  }
  return 0;
}

bool is_known(GgufType type) { return static_cast<uint32_t>(type) <= 12; }
bool is_float(GgufType type) { return type == GgufType::kF32 || type == GgufType::kF64; }

// Reads metadata values of one file and keeps count of all array elements.
class ValueReader {
 public:
  explicit ValueReader(Cursor& cursor) : cursor_(cursor) {}

  Result<MetaValue> read(GgufType type) {
    if (!is_known(type)) {
      return errorf(Code::kDataCorrupt, "value type {} is not one of GGUF's (0..12)",
                    static_cast<uint32_t>(type));
    }
    if (type == GgufType::kString) {
      ASSIGN_OR_RETURN(const std::string_view text, cursor_.text("a string value"));
      return MetaValue(text);
    }
    if (type == GgufType::kArray) return array(1);
    if (type == GgufType::kBool) {
      ASSIGN_OR_RETURN(const uint8_t v, cursor_.number<uint8_t>("a value"));
      return MetaValue(v != 0);
    }
    if (is_float(type)) {
      ASSIGN_OR_RETURN(const double v, floating(type));
      return MetaValue(v);
    }
    ASSIGN_OR_RETURN(const int64_t v, integer(type));
    return MetaValue(v);
  }

 private:
  // A u64 above int64's range saturates: no key that is used here comes near.
  Result<int64_t> integer(GgufType type) {
    constexpr std::string_view kWhat = "a value";
    const auto widen = [](auto v) -> Result<int64_t> {
      if (!v) return std::move(v).error();
      using T = std::decay_t<decltype(*v)>;
      if constexpr (std::is_same_v<T, uint64_t>) {
        return static_cast<int64_t>(std::min<uint64_t>(*v, INT64_MAX));
      } else {
        return static_cast<int64_t>(*v);
      }
    };
    switch (type) {
      case GgufType::kU8:
      case GgufType::kBool: return widen(cursor_.number<uint8_t>(kWhat));
      case GgufType::kI8: return widen(cursor_.number<int8_t>(kWhat));
      case GgufType::kU16: return widen(cursor_.number<uint16_t>(kWhat));
      case GgufType::kI16: return widen(cursor_.number<int16_t>(kWhat));
      case GgufType::kU32: return widen(cursor_.number<uint32_t>(kWhat));
      case GgufType::kI32: return widen(cursor_.number<int32_t>(kWhat));
      case GgufType::kU64: return widen(cursor_.number<uint64_t>(kWhat));
      default: return widen(cursor_.number<int64_t>(kWhat));
    }
  }

  Result<double> floating(GgufType type) {
    if (type == GgufType::kF64) return cursor_.number<double>("a value");
    ASSIGN_OR_RETURN(const float v, cursor_.number<float>("a value"));
    return double{v};
  }

  Result<MetaValue> array(int depth) {
    ASSIGN_OR_RETURN(const uint32_t raw_type, cursor_.number<uint32_t>("an array's element type"));
    ASSIGN_OR_RETURN(const uint64_t count, cursor_.number<uint64_t>("an array's length"));
    const auto type = static_cast<GgufType>(raw_type);
    if (!is_known(type)) {
      return errorf(Code::kDataCorrupt, "array element type {} is not one of GGUF's (0..12)",
                    raw_type);
    }
    const size_t least = type == GgufType::kArray    ? 12
                         : type == GgufType::kString ? 8
                                                     : value_bytes(type);
    if (count > cursor_.left() / least) {
      return errorf(Code::kDataCorrupt,
                    "an array at offset {} claims {} elements of at least {} bytes, but {} bytes "
                    "are left",
                    cursor_.at(), count, least, cursor_.left());
    }
    elements_ += static_cast<int64_t>(count);
    if (elements_ > GgufLimits::kArrayElements) {
      return errorf(Code::kExhausted, "the arrays have more than {} elements in all",
                    GgufLimits::kArrayElements);
    }
    if (type == GgufType::kArray) return nested(count, depth);
    if (type == GgufType::kString) return strings(count);
    if (is_float(type)) {
      std::vector<float> values(count);
      for (float& v : values) {
        ASSIGN_OR_RETURN(const double wide, floating(type));
        v = static_cast<float>(wide);
      }
      return MetaValue(std::move(values));
    }
    std::vector<int64_t> values(count);
    for (int64_t& v : values) {
      ASSIGN_OR_RETURN(v, integer(type));
    }
    return MetaValue(std::move(values));
  }

  Result<MetaValue> strings(uint64_t count) {
    std::vector<std::string_view> values(count);
    for (std::string_view& v : values) {
      ASSIGN_OR_RETURN(v, cursor_.text("a string of an array"));
    }
    return MetaValue(std::move(values));
  }

  Result<MetaValue> nested(uint64_t count, int depth) {
    if (depth >= GgufLimits::kArrayDepth) {
      return errorf(Code::kDataCorrupt, "arrays are nested more than {} deep",
                    GgufLimits::kArrayDepth);
    }
    for (uint64_t i = 0; i < count; ++i) TRY(array(depth + 1));
    return MetaValue();
  }

  Cursor& cursor_;
  int64_t elements_ = 0;
};

Result<MetaEntry> read_meta(Cursor& cursor, ValueReader& values) {
  ASSIGN_OR_RETURN(const std::string_view key, cursor.text("a key", GgufLimits::kKeyBytes));
  if (key.empty()) return Error(Code::kDataCorrupt, "a metadata key is empty");
  const size_t begin = cursor.at();
  ASSIGN_OR_RETURN(const uint32_t type, cursor.number<uint32_t>("a value's type"));
  MetaEntry entry;
  entry.key = std::string(key);
  ASSIGN_OR_RETURN(entry.value, values.read(static_cast<GgufType>(type))
                                    .context("key '" + printable(key) + "'"));
  entry.bytes = cursor.since(begin);
  return entry;
}

// Names of the ecosystem's types that this build does not read, for the error message.
std::string_view foreign_type_name(uint32_t type) {
  switch (type) {
    case 9: return "q8_1";
    case 10: return "q2_k";
    case 11: return "q3_k";
    case 15: return "q8_k";
    case 16: return "iq2_xxs";
    case 17: return "iq2_xs";
    case 18: return "iq3_xxs";
    case 19: return "iq1_s";
    case 20: return "iq4_nl";
    case 21: return "iq3_s";
    case 22: return "iq2_s";
    case 23: return "iq4_xs";
    case 24: return "i8";
    case 25: return "i16";
    case 26: return "i32";
    case 27: return "i64";
    case 28: return "f64";
    case 29: return "iq1_m";
    case 34: return "tq1_0";
    case 35: return "tq2_0";
    case 39: return "mxfp4";
    default: return "unknown";
  }
}

Error unsupported_type(uint32_t type) {
  std::string known;
  for (int i = 0; i < kDTypeCount; ++i) {
    known += (i ? ", " : "") + std::string(dtype_info(static_cast<DType>(i)).name);
  }
  return errorf(Code::kUnsupported, "its type is {} ({}), which is not supported; supported are {}",
                foreign_type_name(type), type, known);
}

Result<TensorEntry> read_tensor_body(Cursor& cursor, std::string_view name) {
  TensorEntry entry;
  entry.name = std::string(name);
  ASSIGN_OR_RETURN(const uint32_t dimensions, cursor.number<uint32_t>("a tensor's dimensions"));
  if (dimensions < 1 || dimensions > 4) {
    return errorf(Code::kDataCorrupt, "it has {} dimensions; 1 to 4 are allowed", dimensions);
  }
  int64_t elements = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    ASSIGN_OR_RETURN(const uint64_t size, cursor.number<uint64_t>("a tensor's dimensions"));
    if (size == 0 || size > static_cast<uint64_t>(GgufLimits::kDimension)) {
      return errorf(Code::kDataCorrupt, "its dimension {} is {}", i, size);
    }
    const auto n = static_cast<int64_t>(size);
    if (n > GgufLimits::kElements / elements) {
      return errorf(Code::kDataCorrupt, "it has more than {} elements", GgufLimits::kElements);
    }
    elements *= n;
    if (i == 0) entry.cols = n;
  }
  entry.rows = elements / entry.cols;
  ASSIGN_OR_RETURN(const uint32_t type, cursor.number<uint32_t>("a tensor's type"));
  ASSIGN_OR_RETURN(entry.offset, cursor.number<uint64_t>("a tensor's offset"));
  const std::optional<DType> dtype = dtype_from_gguf(type);
  if (!dtype) return unsupported_type(type);
  entry.dtype = *dtype;
  const int32_t block = dtype_info(*dtype).block;
  if (entry.cols % block != 0) {
    return errorf(Code::kDataCorrupt,
                  "its rows have {} elements, not a multiple of {}'s block of {}", entry.cols,
                  dtype_info(*dtype).name, block);
  }
  return entry;
}

Result<TensorEntry> read_tensor(Cursor& cursor) {
  ASSIGN_OR_RETURN(const std::string_view name,
                   cursor.text("a tensor's name", GgufLimits::kNameBytes));
  if (name.empty()) return Error(Code::kDataCorrupt, "a tensor has an empty name");
  return read_tensor_body(cursor, name).context("tensor '" + printable(name) + "'");
}

// The counts in the fixed head: tensors, then key-values.
struct Head {
  uint64_t tensors = 0, keys = 0;
};

Result<Head> read_head(Cursor& cursor) {
  ASSIGN_OR_RETURN(const uint32_t magic, cursor.number<uint32_t>("the file's head"));
  if (magic != kGgufMagic) {
    return Error(Code::kDataCorrupt,
                 "this is not a GGUF file (it does not begin with the letters GGUF)");
  }
  ASSIGN_OR_RETURN(const uint32_t version, cursor.number<uint32_t>("the file's head"));
  if ((version & 0xffff) == 0 && version != 0) {
    return Error(Code::kUnsupported, "this GGUF file is big endian; convert it to little endian");
  }
  if (version != 2 && version != 3) {
    return errorf(Code::kUnsupported, "GGUF version {} is not supported; versions 2 and 3 are",
                  version);
  }
  Head head;
  ASSIGN_OR_RETURN(head.tensors, cursor.number<uint64_t>("the file's head"));
  ASSIGN_OR_RETURN(head.keys, cursor.number<uint64_t>("the file's head"));
  constexpr uint64_t kLeastKey = 8 + 1 + 4 + 1, kLeastTensor = 8 + 1 + 4 + 8 + 4 + 8;
  if (head.keys > cursor.left() / kLeastKey || head.tensors > cursor.left() / kLeastTensor) {
    return errorf(Code::kDataCorrupt,
                  "the head claims {} metadata keys and {} tensors, more than {} bytes can hold",
                  head.keys, head.tensors, cursor.left());
  }
  return head;
}

struct Shard {
  std::vector<MetaEntry> meta;
  std::vector<TensorEntry> tensors;
  uint64_t data_begin = 0;
  uint64_t alignment = kGgufDefaultAlignment;
};

const MetaValue* find_meta(const std::vector<MetaEntry>& sorted, std::string_view key) {
  const auto at = std::lower_bound(
      sorted.begin(), sorted.end(), key,
      [](const MetaEntry& entry, std::string_view wanted) { return entry.key < wanted; });
  return at != sorted.end() && at->key == key ? &at->value : nullptr;
}

std::optional<int64_t> find_int(const std::vector<MetaEntry>& sorted, std::string_view key) {
  const MetaValue* value = find_meta(sorted, key);
  const auto* number = value != nullptr ? std::get_if<int64_t>(value) : nullptr;
  return number != nullptr ? std::optional(*number) : std::nullopt;
}

// No tensor outside the file, none overlapping another, all aligned.
Result<void> check_placement(const Shard& shard, uint64_t file_bytes) {
  std::vector<size_t> order(shard.tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return shard.tensors[a].offset < shard.tensors[b].offset;
  });
  const uint64_t room = file_bytes > shard.data_begin ? file_bytes - shard.data_begin : 0;
  uint64_t free_from = 0;
  std::string_view before;
  for (const size_t index : order) {
    const TensorEntry& t = shard.tensors[index];
    const auto bytes = static_cast<uint64_t>(t.rows * row_bytes(t.dtype, t.cols));
    if (t.offset > room || bytes > room - t.offset) {
      return errorf(
          Code::kDataCorrupt,
          "tensor '{}' needs {} bytes at offset {} of the data, which has {}; the file is "
          "truncated or damaged",
          printable(t.name), bytes, t.offset, room);
    }
    if (t.offset % shard.alignment != 0) {
      return errorf(Code::kDataCorrupt, "tensor '{}' begins at offset {}, not a multiple of {}",
                    printable(t.name), t.offset, shard.alignment);
    }
    if (t.offset < free_from) {
      return errorf(Code::kDataCorrupt, "tensors '{}' and '{}' overlap at offset {} of the data",
                    printable(before), printable(t.name), t.offset);
    }
    free_from = t.offset + bytes;
    before = t.name;
  }
  return {};
}

Result<Shard> read_shard(std::span<const std::byte> bytes) {
  Cursor cursor(bytes);
  ASSIGN_OR_RETURN(const Head head, read_head(cursor));
  Shard shard;
  ValueReader values(cursor);
  for (uint64_t i = 0; i < head.keys; ++i) {
    ASSIGN_OR_RETURN(MetaEntry entry, read_meta(cursor, values));
    shard.meta.push_back(std::move(entry));
  }
  std::stable_sort(shard.meta.begin(), shard.meta.end(),
                   [](const MetaEntry& a, const MetaEntry& b) { return a.key < b.key; });
  const auto twin = std::adjacent_find(
      shard.meta.begin(), shard.meta.end(),
      [](const MetaEntry& a, const MetaEntry& b) { return a.key == b.key; });
  if (twin != shard.meta.end()) {
    return errorf(Code::kDataCorrupt, "the key '{}' occurs twice", printable(twin->key));
  }
  if (const auto alignment = find_int(shard.meta, "general.alignment")) {
    if (*alignment < 8 || *alignment > GgufLimits::kAlignment ||
        !std::has_single_bit(static_cast<uint64_t>(*alignment))) {
      return errorf(Code::kDataCorrupt,
                    "general.alignment is {}; it must be a power of two from 8 to {}", *alignment,
                    GgufLimits::kAlignment);
    }
    shard.alignment = static_cast<uint64_t>(*alignment);
  }
  for (uint64_t i = 0; i < head.tensors; ++i) {
    ASSIGN_OR_RETURN(TensorEntry entry, read_tensor(cursor));
    shard.tensors.push_back(std::move(entry));
  }
  shard.data_begin = (cursor.at() + shard.alignment - 1) / shard.alignment * shard.alignment;
  TRY(check_placement(shard, bytes.size()));
  return shard;
}

// "dir/name-00001-of-00003.gguf" -> "dir/name-"; empty if `path` is not the first of `count`.
std::string shard_prefix(const std::string& path, int64_t count) {
  const std::string tail = format("00001-of-{:05}.gguf", count);
  return path.ends_with(tail) ? path.substr(0, path.size() - tail.size()) : std::string();
}

// Maps one more file and adds its tensors to `parts`; returns its metadata.
Result<std::vector<MetaEntry>> add_file(const std::string& path, ModelParts& parts) {
  ASSIGN_OR_RETURN(MappedFile file, MappedFile::open(path));
  ASSIGN_OR_RETURN(Shard shard, read_shard(file.bytes()));
  const std::byte* data = file.bytes().data() + shard.data_begin;
  for (TensorEntry& t : shard.tensors) {
    parts.tensors.push_back({std::move(t.name), t.dtype, t.rows, t.cols, data + t.offset,
                             static_cast<int32_t>(parts.files.size())});
  }
  parts.files.push_back(std::move(file));
  return std::move(shard.meta);
}

Result<void> add_other_shards(const std::vector<MetaEntry>& first, ModelParts& parts) {
  const int64_t count = find_int(first, "split.count").value_or(1);
  if (count <= 1) return {};
  if (count > GgufLimits::kShards) {
    return errorf(Code::kDataCorrupt, "split.count is {}; at most {} shards are allowed", count,
                  GgufLimits::kShards);
  }
  const std::string prefix = shard_prefix(parts.path, count);
  if (find_int(first, "split.no").value_or(0) != 0 || prefix.empty()) {
    return errorf(Code::kInvalidArgument,
                  "this is one of {} shards; open the first, named ...-00001-of-{:05}.gguf", count,
                  count);
  }
  for (int64_t i = 2; i <= count; ++i) {
    const std::string path = prefix + format("{:05}-of-{:05}.gguf", i, count);
    ASSIGN_OR_RETURN(const auto meta, add_file(path, parts).context(path));
    if (find_int(meta, "split.no").value_or(-1) != i - 1) {
      return errorf(Code::kDataCorrupt, "'{}' says that it is not shard {} (split.no is not {})",
                    path, i, i - 1);
    }
  }
  const int64_t expected = find_int(first, "split.tensors.count").value_or(-1);
  const auto found = static_cast<int64_t>(parts.tensors.size());
  if (expected >= 0 && expected != found) {
    return errorf(Code::kDataCorrupt, "the {} shards hold {} tensors; split.tensors.count says {}",
                  count, found, expected);
  }
  return {};
}

}  // namespace

Result<ModelParts> read_gguf(const std::string& path) {
  ModelParts parts;
  parts.path = path;
  ASSIGN_OR_RETURN(std::vector<MetaEntry> meta, add_file(path, parts));
  TRY(add_other_shards(meta, parts));
  TRY(sort_tensors(parts.tensors));
  for (MetaEntry& entry : meta) {
    parts.meta.emplace_back(std::move(entry.key), std::move(entry.value));
    parts.meta_bytes.push_back(entry.bytes);
  }
  ASSIGN_OR_RETURN(parts.desc, desc_from_gguf(parts));
  return parts;
}

}  // namespace towline::engine
