// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// What the files mean to the programs that read them is tested by tests/deploy_files, which parses
// them and gives every command line to towline's own options.
#include "spec/deploy.hpp"

#include <gtest/gtest.h>

namespace towline::spec {
namespace {

Scenario two_workers(const std::string& transport = "zmq") {
  Scenario s;
  s.model = "/srv/m.gguf";
  s.transport = transport;
  s.workers.resize(2);
  s.workers[0].name = "Attic 1";
  s.workers[0].name[5] = '_';
  s.workers[1].name = "cellar%$x";
  s.workers[1].emulate = true;
  s.workers[1].type = "A100";
  s.links.push_back({"Attic_1", "cellar%$x", Seconds(0.05), {}, {}, 0});
  return s;
}

std::string text_of(const std::vector<DeployFile>& files, const std::string& name) {
  for (const DeployFile& file : files) {
    if (file.name == name) return file.text;
  }
  ADD_FAILURE() << "no file " << name;
  return {};
}

TEST(Deploy, AUnitForTheCoordinatorAndEachWorker) {
  DeployOptions o;
  o.coordinator = "head.example";
  const auto files = deploy_files(two_workers(), o);
  ASSERT_TRUE(files) << files.error().to_string();
  ASSERT_EQ(files->size(), 4u);
  const std::string worker = text_of(*files, "towline-worker-cellar-x.service");
  EXPECT_NE(worker.find("--connect zmq://head.example:7100 --name \"cellar%%$$x\""),
            std::string::npos)
      << worker;
  EXPECT_NE(worker.find("--keys ${CREDENTIALS_DIRECTORY}/cluster.keys\n"), std::string::npos)
      << worker;
  EXPECT_NE(worker.find("LimitMEMLOCK=infinity"), std::string::npos);
  EXPECT_NE(worker.find("Restart=always"), std::string::npos);
  EXPECT_NE(text_of(*files, "towline-coordinator.service").find("TimeoutStopSec=40"),
            std::string::npos);
}

TEST(Deploy, TheScenarioDeployedEmulatesNothing) {
  const auto files = deploy_files(two_workers(), {});
  ASSERT_TRUE(files);
  const auto tree = parse_toml(text_of(*files, "scenario.toml"), "deployed");
  ASSERT_TRUE(tree) << tree.error().to_string();
  const auto deployed = parse_scenario(*tree, "deployed");
  ASSERT_TRUE(deployed) << deployed.error().to_string();
  EXPECT_TRUE(deployed->links.empty());
  EXPECT_FALSE(deployed->workers[1].emulate);
  EXPECT_EQ(deployed->workers[1].name, "cellar%$x");
  EXPECT_EQ(deployed->model, "/srv/m.gguf");
}

TEST(Deploy, KeysOnlyWhereTheyAreNeeded) {
  for (const DeployTarget target :
       {DeployTarget::kSystemd, DeployTarget::kSlurm, DeployTarget::kKubernetes}) {
    DeployOptions o;
    o.target = target;
    o.key_text = "SECRET-TEXT";
    const auto plain = deploy_files(two_workers("tcp"), o);
    ASSERT_TRUE(plain);
    for (const DeployFile& file : *plain) {
      EXPECT_EQ(file.text.find("keys"), std::string::npos) << file.text;
      EXPECT_EQ(file.text.find("insecure"), std::string::npos) << file.text;
    }
    o.insecure = true;
    const auto open = deploy_files(two_workers(), o);
    ASSERT_TRUE(open);
    EXPECT_NE(open->back().text.find("--insecure"), std::string::npos);
    EXPECT_EQ(open->back().text.find("SECRET-TEXT"), std::string::npos);
  }
}

TEST(Deploy, ARegistryReplacesTheAddressAndStateOutlivesTheProcess) {
  DeployOptions o;
  o.registry = "etcd://10.0.0.5:2379/garage";
  o.standbys = 2;
  o.state = true;
  const auto units = deploy_files(two_workers("tcp"), o);
  ASSERT_TRUE(units) << units.error().to_string();
  const std::string coordinator = text_of(*units, "towline-coordinator.service");
  EXPECT_NE(coordinator.find(
                "--registry etcd://10.0.0.5:2379/garage --standby --state /var/lib/towline\n"),
            std::string::npos)
      << coordinator;
  EXPECT_NE(coordinator.find("StateDirectory=towline\n"), std::string::npos);
  EXPECT_NE(coordinator.find("on 2 more machines"), std::string::npos);
  const std::string worker = text_of(*units, "towline-worker-attic-1.service");
  EXPECT_NE(worker.find(
                "worker --registry etcd://10.0.0.5:2379/garage --name Attic_1 --connect-seconds 0"),
            std::string::npos)
      << worker;
  EXPECT_EQ(worker.find("StateDirectory"), std::string::npos);
}

TEST(Deploy, RefusesWhatCannotBeDeployed) {
  const auto message = [](const Scenario& s, const DeployOptions& o) {
    const auto files = deploy_files(s, o);
    return files ? std::string("deployed") : files.error().to_string();
  };
  EXPECT_NE(message(two_workers("shm"), {}).find("zmq or tcp"), std::string::npos);
  Scenario none = two_workers();
  none.workers.clear();
  EXPECT_NE(message(none, {}).find("no [[workers]]"), std::string::npos);
  Scenario bad = two_workers();
  bad.workers[0].name = "two words";
  EXPECT_NE(message(bad, {}).find("'two words'"), std::string::npos);
  bad.workers[0].name = "CELLAR.x";
  EXPECT_NE(message(bad, {}).find("same name 'cellar-x'"), std::string::npos);
  DeployOptions o;
  o.name = "Not a label";
  EXPECT_NE(message(two_workers(), o).find("--name"), std::string::npos);
  o = {};
  o.image = "a\nb";
  EXPECT_NE(message(two_workers(), o).find("control character"), std::string::npos);
  o = {};
  o.standbys = 1;
  EXPECT_NE(message(two_workers(), o).find("they need --registry"), std::string::npos);
  o.registry = "file:///srv/registry";
  EXPECT_NE(message(two_workers(), o).find("does not reach other machines"), std::string::npos);
  EXPECT_FALSE(deploy_target_named("nomad"));
}

}  // namespace
}  // namespace towline::spec
