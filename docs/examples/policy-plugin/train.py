#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Weights for the policy `learned`, from the lines that it prints with sample=N:

    train.py LINES >WEIGHTS

A page that is seen in two epochs in a row is an example: what was known of it in the first, and in what
share of the windows of the second it was touched. Logistic regression by gradient descent, on the first four fifths of the
epochs; the rest judges it, on standard error. Needs nothing but Python."""
import math
import random
import sys

RATE, PASSES = 0.3, 20
YOUNG = 8  # epochs of an address space in which heat still tells its age more than anything else


def examples(lines):
    """(epoch, features, share of the next windows), in order of time."""
    before = {}
    begun = {}
    for line in lines:
        words = line.split()
        if len(words) != 8 or words[0] != "page":
            continue
        epoch, space, address, heat, windows, of, earlier = map(int, words[1:])
        last = before.get((space, address))
        young = epoch <= begun.setdefault(space, epoch) + YOUNG
        if last and last[0] == epoch - 1 and not young:
            yield last[0], last[1], windows / max(of, 1)
        before[space, address] = epoch, (1.0, heat / 127, windows / max(of, 1), float(earlier))


def chance(weights, features):
    score = sum(w * x for w, x in zip(weights, features))
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, score))))


def loss(predict, data):
    """Mean surprise at a window, in bits."""
    chances = [(min(max(predict(x), 1e-9), 1 - 1e-9), y) for _, x, y in data]
    return -sum(y * math.log2(p) + (1 - y) * math.log2(1 - p) for p, y in chances) / len(data)


def main():
    with open(sys.argv[1], encoding="ascii", errors="replace") as lines:
        data = list(examples(lines))
    if len(data) < 100:
        sys.exit(f"train.py: {len(data)} examples are too few; sample more pages or more epochs")
    split = sorted(epoch for epoch, _, _ in data)[len(data) * 4 // 5]
    train = [e for e in data if e[0] < split]
    judge = [e for e in data if e[0] >= split]
    weights = [0.0] * 4
    lots = random.Random(1)
    for turn in range(PASSES):
        lots.shuffle(train)
        for _, x, y in train:
            wrong = y - chance(weights, x)
            weights = [w + RATE / (1 + turn) * wrong * f for w, f in zip(weights, x)]
    share = sum(y for _, _, y in train) / len(train)
    print(*weights)
    print(
        f"train.py: {len(train)} examples; on {len(judge)} later ones {loss(lambda x: chance(weights, x), judge):.4f} bits, "
        f"by the mean alone {loss(lambda _: share, judge):.4f}",
        file=sys.stderr,
    )


main()
