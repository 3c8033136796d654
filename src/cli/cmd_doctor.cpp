// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// `towline doctor`: what this machine offers, what is missing, and what to do about each.
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <thread>

#include "base/file.hpp"
#include "base/fmt.hpp"
#include "cli/commands.hpp"
#include "engine/kernel/kernel_table.hpp"
#include "engine/kernel/probe.hpp"

namespace towline::cli {
namespace {

struct DoctorOptions {
  int port = 8080;
  bool json = false;
  bool quick = false;
};

OptionTable table(DoctorOptions& o) {
  OptionTable t("doctor",
                "Look at this machine: what is there, what is missing, what to do about it.");
  t.value("port", &o.port, "the TCP port that you mean to serve on").range(1, 65535);
  t.flag("quick", &o.quick, "leave out the measurements (memory bandwidth, int8 peak)");
  t.flag("json", &o.json, "print JSON");
  t.example("towline doctor");
  t.example("towline doctor --port 8000 --json");
  return t;
}

enum class State { kGood, kNote, kBad };

struct Finding {
  std::string what;
  State state;
  std::string found;
  std::string advice;  // empty when all is well
};

std::string first_line(const std::string& path) {
  Result<std::string> text = read_file(path, 1 << 16);
  if (!text) return {};
  return text->substr(0, text->find('\n'));
}

// "MemAvailable:   123 kB" -> bytes; 0 if unknown.
int64_t meminfo_bytes(std::string_view key) {
  const Result<std::string> text = read_file("/proc/meminfo", 1 << 16);
  if (!text) return 0;
  const size_t at = text->find(std::string(key) + ":");
  return at == std::string::npos ? 0 : std::atoll(text->c_str() + at + key.size() + 1) * 1024;
}

Finding cores() {
  const unsigned n = std::thread::hardware_concurrency();
  return {"cores", n > 0 ? State::kGood : State::kNote, format("{}", n),
          n > 0 ? "" : "the number is unknown; set --threads yourself"};
}

Finding instructions() {
  const std::string best(engine::attainable_tables().front()->name);
  return {"instructions",
          best == "generic" ? State::kBad
          : best == "avx2"  ? State::kNote
                            : State::kGood,
          format("{} kernels ({})", best, engine::cpu_features()),
          best == "generic" ? "no AVX2: expect a tenth of the speed; use a newer processor"
          : best == "avx2"  ? "no AVX-512 VNNI: prefill will be slower than it could be"
                            : ""};
}

Finding memory() {
  const double gib = 1.0 / (1 << 30);
  const auto total = static_cast<double>(meminfo_bytes("MemTotal")) * gib;
  const auto available = static_cast<double>(meminfo_bytes("MemAvailable")) * gib;
  const bool tight = available < 0.1 * total;
  return {"memory", tight ? State::kNote : State::kGood,
          format("{:.1f} GiB, {:.1f} GiB available", total, available),
          tight ? "little is free; a model needs its file's size plus the KV cache" : ""};
}

Finding huge_pages() {
  const std::string mode = first_line("/sys/kernel/mm/transparent_hugepage/enabled");
  const bool off = mode.empty() || mode.find("[never]") != std::string::npos;
  return {
      "huge pages", off ? State::kBad : State::kGood, mode.empty() ? "not offered" : mode,
      off ? "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled: decode gains 10 to 50 %"
          : ""};
}

Finding open_files() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const bool low = limit.rlim_max < 20000;
  return {"open files", low ? State::kNote : State::kGood,
          format("{} now, {} at most", limit.rlim_cur, limit.rlim_max),
          low ? "10,000 clients need more: raise the hard limit (ulimit -Hn 65536, LimitNOFILE= in "
                "systemd)"
              : ""};
}

Finding port_free(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int one = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  const bool is_free = ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  return {format("port {}", port), is_free ? State::kGood : State::kBad, is_free ? "free" : "taken",
          is_free ? "" : "serve on another one with --port, or stop what listens there (ss -ltnp)"};
}

Finding shared_memory() {
  std::error_code error;
  const auto space = std::filesystem::space("/dev/shm", error);
  const bool small = error || space.available < (64u << 20);
  return {"/dev/shm", small ? State::kNote : State::kGood,
          error ? "missing" : format("{} MiB free", space.available >> 20),
          small ? "worker processes on one machine talk through it; mount a tmpfs of 64 MiB or more"
                : ""};
}

// Programs that optional parts use; the search is along PATH.
Finding program(std::string_view name, std::string_view package, std::string_view use) {
  const char* path = std::getenv("PATH");
  std::string_view rest = path ? path : "";
  while (!rest.empty()) {
    const size_t colon = rest.find(':');
    const std::string candidate = std::string(rest.substr(0, colon)) + "/" + std::string(name);
    if (::access(candidate.c_str(), X_OK) == 0) {
      return {std::string(name), State::kGood, candidate, ""};
    }
    rest = colon == std::string_view::npos ? "" : rest.substr(colon + 1);
  }
  return {std::string(name), State::kNote, "not found",
          format("optional, {}: apt-get install {}", use, package)};
}

Result<std::vector<Finding>> measurements() {
  constexpr int64_t kProbeBytes = int64_t{256} << 20;
  constexpr double kProbeSeconds = 0.5;
  const int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  engine::ComputeTeam team(threads);
  ASSIGN_OR_RETURN(const engine::KernelTable* kernels, engine::kernel_table());
  ASSIGN_OR_RETURN(const double read, engine::measure_read_bandwidth(team, *kernels, kProbeBytes,
                                                                     kProbeSeconds));
  const double int8 = engine::measure_int8_peak(team, *kernels, kProbeSeconds);
  const auto with_threads = [&](double rate, std::string_view unit) {
    return format("{:.1f} {} with {} threads", rate / 1e9, unit, threads);
  };
  return std::vector<Finding>{{"memory read", State::kGood, with_threads(read, "GB/s"), ""},
                              {"int8 peak", State::kGood, with_threads(int8, "Gop/s"), ""}};
}

Result<int> run(std::span<const std::string> args) {
  DoctorOptions o;
  ASSIGN_OR_RETURN(const ParseOutcome outcome, table(o).parse(args));
  if (outcome == ParseOutcome::kDone) return 0;
  std::vector<Finding> findings = {cores(), instructions(), memory(), huge_pages(), open_files(),
                                   port_free(o.port), shared_memory(),
                                   program("promtool", "prometheus", "checks /metrics")};
  if (!o.quick) {
    ASSIGN_OR_RETURN(std::vector<Finding> measured, measurements());
    std::ranges::move(measured, std::back_inserter(findings));
  }
  static constexpr std::string_view kMarks[] = {"ok  ", "note", "BAD "};
  static constexpr std::string_view kNames[] = {"ok", "note", "bad"};
  Json list = Json::array();
  bool any_bad = false;
  for (const Finding& f : findings) {
    any_bad |= f.state == State::kBad;
    const auto state = static_cast<size_t>(f.state);
    list.push(Json::object({{"what", f.what}, {"state", kNames[state]}, {"found", f.found},
                            {"advice", f.advice}}));
    if (o.json) continue;
    std::puts(format("{}  {:<14}{}", kMarks[state], f.what, f.found).c_str());
    if (!f.advice.empty()) std::puts(format("      {:<14}-> {}", "", f.advice).c_str());
  }
  if (o.json) std::puts(Json::object({{"findings", list}, {"ok", !any_bad}}).dump().c_str());
  return any_bad ? 1 : 0;
}

}  // namespace

const Command kDoctor = {"doctor", "look at this machine: what is there, what is missing", run,
                         [](void (*sink)(const OptionTable&)) {
                           DoctorOptions o;
                           sink(table(o));
                         }};

}  // namespace towline::cli
