// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The exponential over a vector V of 16 float lanes (see Lanes in avx512.cpp): exp_generic, lane by
// lane.
#pragma once

#include "engine/kernel/kernel_math.hpp"

namespace towline::engine {

template <class V>
typename V::F exp_lanes(typename V::F x) {
  using F = typename V::F;
  const F top = V::min(V::set(kExpHighest), x);  // in this order NaN passes
  const F n = V::round(V::mul(top, V::set(kLog2E)));
  F r = V::fma(n, V::set(-kLn2High), top);
  r = V::fma(n, V::set(-kLn2Low), r);
  F y = V::set(kExpTaylor[0]);
  for (int i = 1; i < 8; ++i) y = V::fma(y, r, V::set(kExpTaylor[i]));
  return V::zero_if_less(x, V::set(kExpLowest), V::mul(y, V::power_of_two(n)));
}

}  // namespace towline::engine
