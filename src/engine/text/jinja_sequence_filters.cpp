// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <map>
#include <optional>

#include "engine/text/jinja_filter_table.hpp"
#include "engine/text/jinja_text.hpp"

namespace towline::engine::jinja {
namespace {

// "a.b.0" of v, as filters take attributes.
Result<Value> deep_attribute(Interpreter& in, const Value& v, const Value& path) {
  if (path.is_int()) return in.item(v, path);
  if (!path.is_string()) return Interpreter::fail("an attribute's name is wanted");
  ASSIGN_OR_RETURN(const std::vector<Value> parts, split_text(in, path.string(), ".", 64, false));
  Value at = v;
  for (const Value& key : parts) {
    const std::string& part = key.string();
    const bool number = !part.empty() && part.size() < 10 &&
                        part.find_first_not_of("0123456789") == std::string::npos;
    ASSIGN_OR_RETURN(at, in.item(at, number ? Value(int64_t{std::stol(part)}) : key));
  }
  return at;
}

Arguments without_first(const Arguments& a, size_t n) {
  Arguments out = a;
  out.positional.erase(out.positional.begin(),
                       out.positional.begin() +
                           static_cast<ptrdiff_t>(std::min(n, out.positional.size())));
  return out;
}

Result<Value> to_list(Interpreter& in, const Value& v, const Arguments&) {
  ASSIGN_OR_RETURN(std::vector<Value> items, in.iterate(v));
  return in.list(std::move(items));
}

Result<Value> first(Interpreter& in, const Value& v, const Arguments&) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, in.iterate(v));
  return items.empty() ? Value(Undefined{"first item of an empty sequence"}) : items.front();
}

Result<Value> last(Interpreter& in, const Value& v, const Arguments&) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, in.iterate(v));
  return items.empty() ? Value(Undefined{"last item of an empty sequence"}) : items.back();
}

Result<Value> join(Interpreter& in, const Value& v, const Arguments& a) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, in.iterate(v));
  ASSIGN_OR_RETURN(const std::string separator, in.show(a.get(0, "d", Value(""))));
  const Value attribute = a.get(1, "attribute", Value(None{}));
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    Value item = items[i];
    if (!attribute.is_none()) {
      ASSIGN_OR_RETURN(item, deep_attribute(in, item, attribute));
    }
    ASSIGN_OR_RETURN(const std::string shown, in.show(item));
    TRY(in.charge(0, static_cast<int64_t>(separator.size())));
    if (i > 0) out += separator;
    out += shown;
  }
  return Value(std::move(out));
}

Result<Value> reverse(Interpreter& in, const Value& v, const Arguments&) {
  ASSIGN_OR_RETURN(std::vector<Value> items, in.iterate(v));
  std::reverse(items.begin(), items.end());
  if (!v.is_string()) return in.list(std::move(items));
  std::string out;
  for (const Value& c : items) out += c.string();
  return in.text(std::move(out));
}

Result<Value> map_items(Interpreter& in, const Value& v, const Arguments& a) {
  if (!v.truthy()) return in.list({});  // Jinja takes none and 0 for empty here
  ASSIGN_OR_RETURN(std::vector<Value> items, in.iterate(v));
  const Value attribute = a.get(SIZE_MAX, "attribute", Value(None{}));
  const Value fallback = a.get(SIZE_MAX, "default", Value(None{}));
  if (attribute.is_none() && (a.positional.empty() || !a.positional[0].is_string())) {
    return Interpreter::fail("map: a filter's name or attribute= is wanted");
  }
  const Arguments rest = without_first(a, 1);
  for (Value& item : items) {
    if (!attribute.is_none()) {
      ASSIGN_OR_RETURN(item, deep_attribute(in, item, attribute));
      if (item.is_undefined() && !fallback.is_none()) item = fallback;
    } else {
      ASSIGN_OR_RETURN(item, in.filter(a.positional[0].string(), item, rest));
    }
  }
  return in.list(std::move(items));
}

// select, reject, selectattr, rejectattr
template <bool wanted, bool by_attribute>
Result<Value> select(Interpreter& in, const Value& v, const Arguments& a) {
  if (!v.truthy()) return in.list({});
  ASSIGN_OR_RETURN(const std::vector<Value> items, in.iterate(v));
  constexpr size_t kTestAt = by_attribute ? 1 : 0;
  if (by_attribute && a.positional.empty()) return Interpreter::fail("an attribute is wanted");
  const Value test = a.get(kTestAt, "", Value(None{}));
  if (!test.is_none() && !test.is_string()) return Interpreter::fail("a test's name is wanted");
  const Arguments rest = without_first(a, kTestAt + 1);
  std::vector<Value> out;
  for (const Value& item : items) {
    Value subject = item;
    if (by_attribute) {
      ASSIGN_OR_RETURN(subject, deep_attribute(in, item, a.positional[0]));
    }
    bool holds = subject.truthy();
    if (test.is_string()) {
      ASSIGN_OR_RETURN(holds, in.test(test.string(), subject, rest));
    }
    if (holds == wanted) out.push_back(item);
  }
  return in.list(std::move(out));
}

// What a value sorts by: letter case is ignored unless asked for.
Result<Value> sort_key(Interpreter& in, const Value& v, bool case_sensitive) {
  if (!v.is_string() || case_sensitive) return v;
  TRY(in.charge_characters(v.string().size()));
  return in.text(lower_text(v.string()));
}

// Sorts (key, value) pairs by key, keeping the order of equals.
Result<void> sort_pairs(Interpreter& in, std::vector<std::pair<Value, Value>>& pairs,
                        bool descending) {
  // The heaviest compared with itself, as often as merging n of them compares.
  const Value* heaviest = nullptr;
  for (const auto& pair : pairs) {
    if (heaviest == nullptr || pair.first.weight() > heaviest->weight()) heaviest = &pair.first;
  }
  if (heaviest == nullptr) return {};
  for (size_t i = 0; i + 1 < pairs.size(); ++i) TRY(in.order(pairs[i].first, pairs[i + 1].first));
  const auto rounds = static_cast<int64_t>(std::bit_width(pairs.size()));
  const int64_t each = Interpreter::comparison_cost(*heaviest, *heaviest);
  TRY(in.charge(static_cast<int64_t>(pairs.size()) * rounds *
                std::min(2 * each, int64_t{1} << 30)));
  std::optional<Error> error;
  std::stable_sort(pairs.begin(), pairs.end(), [&](const auto& a, const auto& b) {
    const Result<int> order = descending ? compare(b.first, a.first) : compare(a.first, b.first);
    if (!order && !error) error = order.error();
    return order && *order < 0;
  });
  if (error) return *error;
  return {};
}

Result<Value> sort(Interpreter& in, const Value& v, const Arguments& a) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, in.iterate(v));
  const bool descending = a.get(0, "reverse", Value(false)).truthy();
  const bool case_sensitive = a.get(1, "case_sensitive", Value(false)).truthy();
  const Value attribute = a.get(2, "attribute", Value(None{}));
  std::vector<std::pair<Value, Value>> pairs;
  for (const Value& item : items) {
    Value key = item;
    if (!attribute.is_none()) {
      ASSIGN_OR_RETURN(key, deep_attribute(in, item, attribute));
    }
    ASSIGN_OR_RETURN(key, sort_key(in, key, case_sensitive));
    pairs.emplace_back(std::move(key), item);
  }
  TRY(sort_pairs(in, pairs, descending));
  std::vector<Value> out;
  for (auto& pair : pairs) out.push_back(std::move(pair.second));
  return in.list(std::move(out));
}

Result<Value> dict_items(Interpreter& in, const Value& v, const Arguments&) {
  if (v.is_undefined()) return in.list({});
  if (!v.is_map()) return Interpreter::fail("items of a {}", v.type_name());
  return in.call(find_method(v, "items"), {});
}

Result<Value> dict_sort(Interpreter& in, const Value& v, const Arguments& a) {
  if (!v.is_map()) return Interpreter::fail("dictsort of a {}", v.type_name());
  const bool case_sensitive = a.get(0, "case_sensitive", Value(false)).truthy();
  const bool by_value = a.get(1, "by", Value("key")) == Value("value");
  const bool descending = a.get(2, "reverse", Value(false)).truthy();
  std::vector<std::pair<Value, Value>> pairs;
  for (const auto& [key, value] : v.map().members) {
    ASSIGN_OR_RETURN(Value pair, in.list({key, value}, true));
    ASSIGN_OR_RETURN(Value by, sort_key(in, by_value ? value : key, case_sensitive));
    pairs.emplace_back(std::move(by), std::move(pair));
  }
  TRY(sort_pairs(in, pairs, descending));
  std::vector<Value> out;
  for (auto& pair : pairs) out.push_back(std::move(pair.second));
  return in.list(std::move(out));
}

Result<Value> unique(Interpreter& in, const Value& v, const Arguments& a) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, in.iterate(v));
  const bool case_sensitive = a.get(0, "case_sensitive", Value(false)).truthy();
  const Value attribute = a.get(1, "attribute", Value(None{}));
  std::vector<Value> keys, out;
  for (const Value& item : items) {
    Value key = item;
    if (!attribute.is_none()) {
      ASSIGN_OR_RETURN(key, deep_attribute(in, item, attribute));
    }
    ASSIGN_OR_RETURN(key, sort_key(in, key, case_sensitive));
    bool seen = false;
    for (const Value& k : keys) {
      ASSIGN_OR_RETURN(const bool same, in.equal(k, key));
      if ((seen = same)) break;
    }
    if (seen) continue;
    keys.push_back(std::move(key));
    out.push_back(item);
  }
  return in.list(std::move(out));
}

template <bool largest>
Result<Value> extreme(Interpreter& in, const Value& v, const Arguments& a) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, in.iterate(v));
  const bool case_sensitive = a.get(0, "case_sensitive", Value(false)).truthy();
  const Value attribute = a.get(1, "attribute", Value(None{}));
  if (items.empty()) return Value(Undefined{"an item of an empty sequence"});
  size_t best = 0;
  Value best_key;
  for (size_t i = 0; i < items.size(); ++i) {
    Value key = items[i];
    if (!attribute.is_none()) {
      ASSIGN_OR_RETURN(key, deep_attribute(in, key, attribute));
    }
    ASSIGN_OR_RETURN(key, sort_key(in, key, case_sensitive));
    if (i > 0) {
      ASSIGN_OR_RETURN(const int order, in.order(key, best_key));
      if (largest ? order <= 0 : order >= 0) continue;
    }
    best = i;
    best_key = std::move(key);
  }
  return items[best];
}

Result<Value> sum(Interpreter& in, const Value& v, const Arguments& a) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, in.iterate(v));
  const Value attribute = a.get(0, "attribute", Value(None{}));
  const Value start = a.get(1, "start", Value(0));
  if (!start.is_number()) return Interpreter::fail("sum from a {}", start.type_name());
  int64_t whole = start.is_float() ? 0 : start.integer();
  double real = start.is_float() ? start.number() : 0;
  bool is_real = start.is_float();
  for (const Value& item : items) {
    Value n = item;
    if (!attribute.is_none()) {
      ASSIGN_OR_RETURN(n, deep_attribute(in, item, attribute));
    }
    if (!n.is_number()) return Interpreter::fail("sum over a {}", n.type_name());
    if (n.is_float()) {
      is_real = true;
      real += n.number();
    } else if (__builtin_add_overflow(whole, n.integer(), &whole)) {
      return Interpreter::fail("sum: the result does not fit 64 bits");
    }
  }
  return is_real ? Value(real + static_cast<double>(whole)) : Value(whole);
}

Result<Value> batch(Interpreter& in, const Value& v, const Arguments& a) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, in.iterate(v));
  const Value size = a.get(0, "linecount", Value());
  const Value fill = a.get(1, "fill_with", Value(None{}));
  if (!size.is_int() || size.integer() < 1) return Interpreter::fail("batch: a size is wanted");
  const auto n = static_cast<size_t>(std::min<int64_t>(size.integer(), 1 << 20));
  std::vector<Value> out;
  for (size_t i = 0; i < items.size(); i += n) {
    const size_t end = std::min(items.size(), i + n);
    std::vector<Value> line(items.begin() + static_cast<ptrdiff_t>(i),
                            items.begin() + static_cast<ptrdiff_t>(end));
    if (!fill.is_none()) {
      TRY(in.charge(static_cast<int64_t>(n), static_cast<int64_t>(n * sizeof(Value))));
      line.resize(n, fill);
    }
    ASSIGN_OR_RETURN(Value one, in.list(std::move(line)));
    out.push_back(std::move(one));
  }
  return in.list(std::move(out));
}

Result<Value> group_by(Interpreter& in, const Value& v, const Arguments& a) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, in.iterate(v));
  const Value attribute = a.get(0, "attribute", Value());
  std::vector<std::pair<Value, Value>> pairs;
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(Value key, deep_attribute(in, item, attribute));
    pairs.emplace_back(std::move(key), item);
  }
  TRY(sort_pairs(in, pairs, false));
  std::vector<Value> out;
  for (size_t i = 0; i < pairs.size();) {
    std::vector<Value> members;
    const Value key = pairs[i].first;
    for (; i < pairs.size(); ++i) {
      ASSIGN_OR_RETURN(const bool same, in.equal(pairs[i].first, key));
      if (!same) break;
      members.push_back(pairs[i].second);
    }
    ASSIGN_OR_RETURN(Value group, in.list(std::move(members)));
    ASSIGN_OR_RETURN(Value pair, in.list({key, std::move(group)}, true));
    out.push_back(std::move(pair));
  }
  return in.list(std::move(out));
}

}  // namespace

Filter find_sequence_filter(std::string_view name) {
  static const std::map<std::string_view, Filter> kTable = {
      {"list", to_list},
      {"first", first},
      {"last", last},
      {"join", join},
      {"reverse", reverse},
      {"map", map_items},
      {"select", select<true, false>},
      {"reject", select<false, false>},
      {"selectattr", select<true, true>},
      {"rejectattr", select<false, true>},
      {"sort", sort},
      {"items", dict_items},
      {"dictsort", dict_sort},
      {"unique", unique},
      {"max", extreme<true>},
      {"min", extreme<false>},
      {"sum", sum},
      {"batch", batch},
      {"groupby", group_by},
  };
  const auto at = kTable.find(name);
  return at == kTable.end() ? nullptr : at->second;
}

}  // namespace towline::engine::jinja
