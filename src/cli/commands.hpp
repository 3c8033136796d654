// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// Every subcommand, one declaration a line; each is defined in its own cmd_*.cpp.
#pragma once

#include "cli/command.hpp"

namespace towline::cli {

extern const Command kBenchEngine;
extern const Command kCall;
extern const Command kBenchLoad;
extern const Command kBenchPipeline;
extern const Command kBenchSpmd;
extern const Command kClusterCheck;
extern const Command kClusterGenerate;
extern const Command kClusterPrune;
extern const Command kClusterShow;
extern const Command kCompare;
extern const Command kCompletions;
extern const Command kModelCheck;
extern const Command kDeploy;
extern const Command kDoctor;
extern const Command kFlow;
extern const Command kModelInfo;
extern const Command kModelMakeDummy;
extern const Command kModelQuantize;
extern const Command kNetKeys;
extern const Command kNetPing;
extern const Command kNetServe;
extern const Command kOptions;
extern const Command kPlan;
extern const Command kProfile;
extern const Command kProfileCheck;
extern const Command kProfileLearn;
extern const Command kReplan;
extern const Command kJournal;
extern const Command kReport;
extern const Command kRank;
extern const Command kRun;
extern const Command kChat;
extern const Command kServe;
extern const Command kSimulate;
extern const Command kSystemConfig;
extern const Command kUp;
extern const Command kWorker;
extern const Command kStatus;
extern const Command kDrain;
extern const Command kTop;
extern const Command kVersion;
extern const Command kTemplate;
extern const Command kTokenize;
extern const Command kDetokenize;

}  // namespace towline::cli
