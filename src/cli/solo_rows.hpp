// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// SoloRows: what `run` and `chat` have in common: options of drawing and of an engine in this
// process that answers one request at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/options.hpp"
#include "base/result.hpp"
#include "engine/format/model_file.hpp"
#include "engine/sampler.hpp"
#include "serve/local_engine.hpp"

namespace towline::cli {

struct SoloRows {
  double temperature = 0.8, top_p = 0.95, min_p = 0;
  int top_k = 40, threads = 0, context = 0;
  int64_t seed = -1;
  std::string isa = "auto";
  bool progress = false;

  // The rows of drawing but for the seed; `fits` says what the context has to hold.
  void add_drawing(OptionTable& table);
  void add_engine(OptionTable& table, std::string_view seed_help, std::string_view fits);
  // A seed below 0 is drawn anew.
  engine::SamplingParams sampling() const;
  // Loads the model, with its progress on stderr.
  Result<std::unique_ptr<serve::LocalEngine>> start(std::shared_ptr<engine::ModelFile> file,
                                                    serve::EventSink sink) const;
};

}  // namespace towline::cli
