// SPDX-FileCopyrightText: 2026 The Towline Authors
// SPDX-License-Identifier: Apache-2.0
//
// The servers that tests/clients/run started.
export const url = process.env.TOWLINE_URL;
export const busyUrl = process.env.TOWLINE_BUSY_URL;
export const key = process.env.TOWLINE_KEY;
export const model = "towline-test";
export const prompt = "Once upon a time";

// Collects an async iterable.
export async function collect(stream) {
  const all = [];
  for await (const item of stream) all.push(item);
  return all;
}
