#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The Towline Authors
# SPDX-License-Identifier: Apache-2.0
"""Copies of an instance side by side: replicate_instance.py IN.inst COPIES OUT.inst

Every copy keeps its own links and is joined to the same source and sink, so 24 copies of a 42-node
cluster are one cluster of 1,008 nodes.
"""
import sys


def main():
    source, copies, target = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    rows = [line.split() for line in open(source) if line.strip() and line[0] != "#"]
    layers, nodes, links = map(int, rows[0])
    tables = rows[1 : 1 + nodes]
    arcs = rows[1 + nodes : 1 + nodes + links]
    with open(target, "w") as out:
        out.write(f"{layers} {nodes * copies} {links * copies}\n")
        for _ in range(copies):
            out.writelines(" ".join(table) + "\n" for table in tables)
        for copy in range(copies):
            for from_, to, capacity in arcs:
                ends = [int(end) for end in (from_, to)]
                ends = [end if end < 0 else end + copy * nodes for end in ends]
                out.write(f"{ends[0]} {ends[1]} {capacity}\n")


if __name__ == "__main__":
    main()
