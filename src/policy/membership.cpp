// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
#include "policy/membership.hpp"

#include <algorithm>

#include "base/check.hpp"
#include "base/fmt.hpp"

namespace towline::policy {

NodeId Membership::know(const std::string& name) {
  const auto [at, fresh] = by_name_.emplace(name, NodeId(size()));
  if (fresh) members_.push_back({.name = name});
  return at->second;
}

Membership::Hello Membership::hello(Instant now, const std::string& name, uint64_t incarnation) {
  const NodeId node = know(name);
  Member& m = at(node);
  if (fenced_.contains({node.value, incarnation})) return {Verdict::kFenced, node};
  if (m.alive && m.incarnation == incarnation) return {Verdict::kAlreadyHere, node};
  const bool replaced = m.alive;
  if (replaced) declare_dead(node);
  m.incarnation = incarnation;
  m.alive = true;
  m.heard = m.progressed = now;
  m.runs = 0;
  m.busy = false;
  m.hang = limits_.hang;
  return {Verdict::kWelcome, node, replaced};
}

bool Membership::beat(Instant now, NodeId node, uint64_t incarnation, int64_t runs) {
  if (!is_current(node, incarnation)) return false;
  Member& m = at(node);
  m.heard = now;
  if (runs != m.runs) {
    m.runs = runs;
    m.progressed = now;
  }
  return true;
}

void Membership::set_hang(NodeId node, Duration hang) {
  if (known(node)) at(node).hang = std::max(hang, limits_.hang);
}

void Membership::heard_of(Instant now, NodeId node) {
  if (is_alive(node)) at(node).heard = now;
}

void Membership::set_busy(Instant now, NodeId node, bool busy) {
  Member& m = at(node);
  if (busy && !m.busy) m.progressed = now;
  m.busy = busy;
}

void Membership::fence(NodeId node, uint64_t incarnation) {
  if (known(node) && !is_current(node, incarnation)) fenced_.insert({node.value, incarnation});
}

void Membership::forgive(Duration time) {
  for (Member& m : members_) {
    m.heard = m.heard + time;
    m.progressed = m.progressed + time;
  }
}

bool Membership::declare_dead(NodeId node) {
  if (!is_alive(node)) return false;
  Member& m = at(node);
  m.alive = m.busy = false;
  fenced_.insert({node.value, m.incarnation});
  return true;
}

std::vector<Membership::Overdue> Membership::overdue(Instant now) const {
  std::vector<Overdue> late;
  for (int32_t i = 0; i < size(); ++i) {
    const Member& m = members_[static_cast<size_t>(i)];
    if (!m.alive) continue;
    if (now >= m.heard + limits_.lease) {
      late.push_back(
          {NodeId(i), format("nothing heard for {:.1f} s", to_seconds(now - m.heard)), true});
    } else if (m.busy && now >= m.progressed + m.hang) {
      late.push_back({NodeId(i), format("no progress for {:.1f} s with work to do",
                                        to_seconds(now - m.progressed))});
    }
  }
  return late;
}

Instant Membership::next_deadline() const {
  Instant next = kNever;
  for (const Member& m : members_) {
    if (!m.alive) continue;
    next = std::min(next, m.heard + limits_.lease);
    if (m.busy) next = std::min(next, m.progressed + m.hang);
  }
  return next;
}

bool Membership::is_alive(NodeId node) const { return known(node) && member(node).alive; }

bool Membership::is_current(NodeId node, uint64_t incarnation) const {
  return is_alive(node) && member(node).incarnation == incarnation;
}

const Membership::Member& Membership::member(NodeId node) const {
  CHECK(known(node), node, size());
  return members_[static_cast<size_t>(node.value)];
}

}  // namespace towline::policy
