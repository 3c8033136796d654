// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// OracleDecoder: the decoder written the slow, obvious way, in double precision. Test code only.
//
// No cache, no blocks, no packing, no quantised activations: every call evaluates all positions of
// one sequence from the model file's tensors. The fast engine must come close to it, and the naive
// code is short enough to be checked by reading.
#pragma once

#include <cmath>
#include <map>
#include <numbers>
#include <string>
#include <vector>

#include "engine/format/model_file.hpp"

namespace towline::engine {

class OracleDecoder {
 public:
  using Vector = std::vector<double>;

  explicit OracleDecoder(const ModelFile& file) : file_(file), d_(file.desc()) {}

  // A matrix [rows][cols] of the file, to be altered before logits() (merged adapters).
  Vector& edit(const std::string& name) {
    matrix(name);
    return cache_[name];
  }

  // Logits after each position: [tokens.size()][vocab].
  std::vector<Vector> logits(const std::vector<int32_t>& tokens) {
    const bool own = file_.find("output.weight") != nullptr;
    const bool embedded = file_.find("token_embd.weight") != nullptr;
    const std::string input = embedded ? "token_embd.weight" : "output.weight";
    const std::string output = own ? "output.weight" : "token_embd.weight";
    std::vector<Vector> x;
    for (const int32_t token : tokens) x.push_back(row(input, token));
    for (int32_t layer = 0; layer < d_.layers; ++layer) apply_layer(layer, x);
    std::vector<Vector> result;
    for (const Vector& state : x) {
      result.push_back(multiply(output, normalised(state, "output_norm.weight")));
    }
    return result;
  }

 private:
  const Vector& matrix(const std::string& name) {
    Vector& values = cache_[name];
    if (!values.empty()) return values;
    const Tensor* t = file_.find(name);
    std::vector<float> one(static_cast<size_t>(t->cols));
    for (int64_t r = 0; r < t->rows; ++r) {
      dequantize_row(t->dtype, t->data + r * row_bytes(t->dtype, t->cols), one);
      values.insert(values.end(), one.begin(), one.end());
    }
    return values;
  }
  Vector row(const std::string& name, int32_t r) {
    const Vector& m = matrix(name);
    return {m.begin() + int64_t{r} * d_.hidden, m.begin() + int64_t{r + 1} * d_.hidden};
  }
  Vector multiply(const std::string& name, const Vector& x) {
    const Vector& m = matrix(name);
    Vector y(m.size() / x.size());
    for (size_t r = 0; r < y.size(); ++r) {
      for (size_t k = 0; k < x.size(); ++k) y[r] += m[r * x.size() + k] * x[k];
    }
    return y;
  }
  Vector normalised(const Vector& x, const std::string& name) {
    const Vector& weight = matrix(name);
    double square = 0;
    for (const double v : x) square += v * v;
    const double scale =
        1 / std::sqrt(square / static_cast<double>(x.size()) + static_cast<double>(d_.norm_eps));
    Vector y(x.size());
    for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] * scale * weight[i];
    return y;
  }
  double frequency(int32_t pair) const {
    const double plain = std::pow(static_cast<double>(d_.rope_theta), -2.0 * pair / d_.rope_dim);
    const auto factor = static_cast<double>(d_.rope_factor);
    if (d_.rope_scaling == spec::RopeScaling::kLinear) return plain / factor;
    if (d_.rope_scaling == spec::RopeScaling::kTable) {
      return plain / static_cast<double>(d_.rope_factors[static_cast<size_t>(pair)]);
    }
    if (d_.rope_scaling == spec::RopeScaling::kLlama3) {
      // As the model's authors put it: by wavelength.
      const double wavelength = 2 * std::numbers::pi / plain;
      const double context = d_.rope_original_context;
      const auto low = static_cast<double>(d_.rope_low_freq);
      const auto high = static_cast<double>(d_.rope_high_freq);
      if (wavelength < context / high) return plain;
      if (wavelength > context / low) return plain / factor;
      const double smooth = (context / wavelength - low) / (high - low);
      return (1 - smooth) * plain / factor + smooth * plain;
    }
    return plain;
  }
  void rotate(double* head, size_t position) const {
    const int32_t pairs = d_.rope_dim / 2;
    for (int32_t i = 0; i < pairs; ++i) {
      const bool interleaved = d_.rope_pairing == spec::RopePairing::kInterleaved;
      double& a = head[interleaved ? 2 * i : i];
      double& b = head[interleaved ? 2 * i + 1 : i + pairs];
      const double angle = static_cast<double>(position) * frequency(i);
      const double a2 = a * std::cos(angle) - b * std::sin(angle);
      b = a * std::sin(angle) + b * std::cos(angle);
      a = a2;
    }
  }
  // One of q, k, v for every position: product, bias, head norm, rotation.
  std::vector<Vector> project(int32_t layer, const std::vector<Vector>& x, char which) {
    const std::string p = "blk." + std::to_string(layer) + ".";
    const std::string name = p + "attn_" + which;
    std::vector<Vector> out;
    for (size_t t = 0; t < x.size(); ++t) {
      Vector y = multiply(name + ".weight", normalised(x[t], p + "attn_norm.weight"));
      if (d_.qkv_bias) {
        const Vector& bias = matrix(name + ".bias");
        for (size_t i = 0; i < y.size(); ++i) y[i] += bias[i];
      }
      for (size_t h = 0; which != 'v' && h * head() < y.size(); ++h) {
        double* one = y.data() + h * head();
        if (d_.qk_norm) {
          const Vector n = normalised({one, one + head()}, name + "_norm.weight");
          std::copy(n.begin(), n.end(), one);
        }
        rotate(one, t);
      }
      out.push_back(std::move(y));
    }
    return out;
  }
  size_t head() const { return static_cast<size_t>(d_.head_dim); }
  // Query position t, head h, over its own and earlier positions.
  void attend(const Vector& q, const std::vector<Vector>& k, const std::vector<Vector>& v, size_t t,
              size_t h, Vector& out) const {
    const size_t at = h * head();
    const size_t kv = h / static_cast<size_t>(d_.heads / d_.kv_heads) * head();
    const auto window = static_cast<size_t>(d_.sliding_window);
    const size_t first = window > 0 && t + 1 > window ? t + 1 - window : 0;
    Vector weight;
    double sum = 0;
    for (size_t s = first; s <= t; ++s) {
      double dot = 0;
      for (size_t i = 0; i < head(); ++i) dot += q[at + i] * k[s][kv + i];
      weight.push_back(std::exp(dot / std::sqrt(static_cast<double>(d_.head_dim))));
      sum += weight.back();
    }
    for (size_t s = first; s <= t; ++s) {
      for (size_t i = 0; i < head(); ++i) out[at + i] += weight[s - first] / sum * v[s][kv + i];
    }
  }
  void apply_layer(int32_t layer, std::vector<Vector>& x) {
    const std::string p = "blk." + std::to_string(layer) + ".";
    const auto q = project(layer, x, 'q'), k = project(layer, x, 'k'), v = project(layer, x, 'v');
    for (size_t t = 0; t < x.size(); ++t) {
      Vector mixed(q[t].size());
      for (size_t h = 0; h < static_cast<size_t>(d_.heads); ++h) attend(q[t], k, v, t, h, mixed);
      add(x[t], multiply(p + "attn_output.weight", mixed));
      const Vector n = normalised(x[t], p + "ffn_norm.weight");
      Vector gate = multiply(p + "ffn_gate.weight", n);
      const Vector up = multiply(p + "ffn_up.weight", n);
      for (size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1 + std::exp(-gate[i]));
      add(x[t], multiply(p + "ffn_down.weight", gate));
    }
  }
  static void add(Vector& x, const Vector& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }

  const ModelFile& file_;
  const spec::ModelDesc& d_;
  std::map<std::string, Vector> cache_;
};

}  // namespace towline::engine
