"""Parameters and MACs of Wav2Lip's generator with some of its levels cut, counted layer by layer from its description: what
wav2lip.rs holds our plans against.

    python wav2lip_counts.py

A level is a resolution of the face, 0 being the finest; speech counts by how many of them are finer than its own.
"""


def count(kept, nef=16, naf=32, ndf=32, residual=True, side=96):
    """Parameters, MACs with transposed convolutions by input positions, and by output positions; `kept(level)` is a share."""
    total = [0, 0, 0]

    def conv(before, after, kernel, positions, norm=True):
        macs = before * after * kernel ** 2 * positions
        total[:] = [total[0] + before * after * kernel ** 2 + after * (3 if norm else 1), total[1] + macs, total[2] + macs]
        return after

    def up(before, after, kernel, inside, outside):
        weights = before * after * kernel ** 2
        total[:] = [total[0] + weights + 3 * after, total[1] + weights * inside, total[2] + weights * outside]
        return after

    def more(width, positions, times):
        for _ in range(times if residual else 0):
            conv(width, width, 3, positions)

    width = lambda n, level: round(n * kept(level))
    x, skips, last = conv(6, width(nef, 0), 7, side ** 2), [], side // 32
    skips.append(x)
    for level, times in enumerate([2, 3, 2, 2, 1], 1):
        positions = (side >> level) ** 2
        x = conv(x, width(nef << level, level), 3, positions)
        more(x, positions, times)
        skips.append(x)
    x = conv(x, width(nef * 32, 6), last, 1)
    skips.append(conv(x, width(nef * 32, 6), 1, 1))
    x = 1
    for scale, positions, times, level in [(1, 80 * 16, 2, 2), (2, 27 * 16, 2, 3), (4, 9 * 6, 2, 4), (8, 3 * 3, 1, 5)]:
        x = conv(x, width(naf * scale, level), 3, positions)
        more(x, positions, times)
    x = conv(x, width(naf * 16, 6), 3, 1)
    x = conv(x, width(naf * 16, 6), 1, 1)
    x = conv(x, width(naf * 16, 6), 1, 1)
    inside = 1
    for scale, times, level in [(16, 1, 5), (16, 2, 4), (12, 2, 3), (8, 2, 2), (4, 2, 1), (2, 2, 0)]:
        outside = (side >> level) ** 2
        x = up(x + skips.pop(), width(ndf * scale, level), last if level == 5 else 3, inside, outside)
        more(x, outside, times)
        inside = outside
    x = conv(x + skips.pop(), width(ndf, 0), 3, side ** 2)
    conv(x, 3, 1, side ** 2, norm=False)
    return total


if __name__ == "__main__":
    for side in (96, 128):
        for residual in (True, False):
            for share in (1, 0.25):
                print(side, "residual" if residual else "plain", share, *count(lambda _: share, residual=residual, side=side))
    for start in (3, 4, 5, 6):
        for ratio in (0.25, 0.5, 0.75):
            print("from level", start, ratio, *count(lambda level: 1 - ratio if level >= start else 1))
