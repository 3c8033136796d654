// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// A fresh self-signed certificate of 127.0.0.1 and its key. Test code only.
#pragma once

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <string>

#include "base/fmt.hpp"

namespace towline::serve {

// PEM files in the tests' own directory, which live as long as this.
struct TestCertificate {
  std::string cert, key;

  TestCertificate() {
    static std::atomic<int> made{0};
    const std::string base = ::testing::TempDir() + format("towline-tls-{}-{}", ::getpid(), ++made);
    cert = base + ".crt";
    key = base + ".key";
    EVP_PKEY* pair = EVP_RSA_gen(2048);
    X509* x509 = X509_new();
    X509_set_version(x509, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(x509), 1);
    // A day behind and ahead: a clock that is set meanwhile does no harm.
    X509_gmtime_adj(X509_getm_notBefore(x509), -86400);
    X509_gmtime_adj(X509_getm_notAfter(x509), 86400);
    X509_set_pubkey(x509, pair);
    X509_NAME* name = X509_get_subject_name(x509);
    const unsigned char word[] = "towline test";
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, word, -1, -1, 0);
    X509_set_issuer_name(x509, name);
    X509_EXTENSION* hosts =
        X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, "IP:127.0.0.1");
    X509_add_ext(x509, hosts, -1);
    X509_EXTENSION_free(hosts);
    X509_sign(x509, pair, EVP_sha256());
    std::FILE* f = std::fopen(key.c_str(), "w");
    PEM_write_PrivateKey(f, pair, nullptr, nullptr, 0, nullptr, nullptr);
    std::fclose(f);
    f = std::fopen(cert.c_str(), "w");
    PEM_write_X509(f, x509);
    std::fclose(f);
    X509_free(x509);
    EVP_PKEY_free(pair);
  }
  ~TestCertificate() {
    std::remove(cert.c_str());
    std::remove(key.c_str());
  }
  TestCertificate(const TestCertificate&) = delete;
  TestCertificate& operator=(const TestCertificate&) = delete;
};

}  // namespace towline::serve
