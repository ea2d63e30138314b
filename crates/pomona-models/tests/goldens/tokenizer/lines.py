"""Writes lines.json: 1,000 seeded lines with emoji, digits, code, scripts, odd spaces and special tokens.

    python lines.py > lines.json
"""

import json
import random

rng = random.Random(20)
WORDS = """the of and to in model weights pruning layer attention they're we'll I've DON'T can't It's o'clock
naïve café Straße résumé coöperate e\u0301tude Ångström ﬁne İstanbul привет мир Български γειά κόσμος שלום عالم سلام
नमस्ते ภาษาไทย 你好 世界 こんにちは カタカナ 한국어 ខ្មែរ unbelievable antidisestablishmentarianism x y z""".split()
EMOJI = ["😀", "🚀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "👍🏽", "❤️", "✅", "🦙🦙", "1️⃣", "🤷🏾‍♀️", "😶‍🌫️", "♠", "☃"]
CODE = [
    "def f(x, *args, **kw):\n    return x[1:-1] ** 2  # 100%",
    "for (int i = 0; i < 1024; ++i) { a[i] += b[i] * 3.14159f; }",
    "let v: Vec<&'a str> = s.split(\"::\").collect::<Vec<_>>();",
    "SELECT COUNT(*) FROM t WHERE id >= 42 AND name LIKE '%x_%';",
    "<div class=\"a-b\" id='c1'>&nbsp;&#8364;</div>",
    "curl -sSL https://example.org/a/b?c=d&e=%20f#g | sh -x 2>&1",
    "if err != nil {\n\t\treturn fmt.Errorf(\"%w: %d\", err, n)\n\t}",
    "\\frac{\\partial L}{\\partial w_{ij}} = \\sum_{k=1}^{N} x_k^2",
    "0x1F600 0b1010 1e-05 1_000_000 192.168.0.1 2024-02-29T23:59:60Z",
    "printf(\"%5.2f\\n\", 1.0/3);\r\n\r\nreturn 0;",
    "{\"a\": [1, 2.50, null, true], \"b\\u00e9\": {}}",
]
SPACES = [" ", " ", " ", " ", "  ", "   ", "\t", "\n", "\n\n", " \n ", "\u00a0", "\u3000", "\u200b", "\r\n", "        "]
MARKS = ["...", "!!!", "?!", "—", "–", "…", "“q”", "‘s’", "«»", "---", "====", "~", "©", "™", "½", "²", "€5", "$", "´", "`", "|", "^"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_start|>user\n", "<s>", "</s>", "<0x0A>", "[INST]", "<unk>"]


def digits():
    kind = rng.randrange(5)
    if kind == 0:
        return str(rng.randrange(10 ** rng.randrange(1, 18)))
    if kind == 1:
        return f"{rng.random() * 10 ** rng.randrange(6):,.{rng.randrange(6)}f}"
    if kind == 2:
        return "".join(chr(rng.choice([0x660, 0x966, 0xFF10, 0x1D7CE]) + rng.randrange(10)) for _ in range(rng.randrange(1, 5)))
    if kind == 3:
        return f"{rng.randrange(24):02}:{rng.randrange(60):02}"
    return f"v{rng.randrange(10)}.{rng.randrange(100)}.{rng.randrange(1000)}-rc{rng.randrange(9)}"


def anything():
    while True:
        c = chr(rng.choice([rng.randrange(0x20, 0x250), rng.randrange(0x370, 0x3000), rng.randrange(0x3000, 0xD7FF), rng.randrange(0x1F300, 0x1FAFF)]))
        if c.isprintable():
            return c


def line(i):
    if i < len(CODE):
        return CODE[i]
    if i < len(CODE) + len(SPACES):
        return SPACES[i - len(CODE)] + "a" + SPACES[i - len(CODE)]
    parts = [lambda: rng.choice(WORDS)] * 8 + [digits] * 3 + [lambda: rng.choice(EMOJI)] * 2 + [lambda: rng.choice(MARKS)] * 2
    parts += [lambda: "".join(anything() for _ in range(rng.randrange(1, 5)))]
    text = ""
    for _ in range(rng.randrange(1, 13)):
        text += rng.choice(parts)()
        if rng.random() < 0.75:
            text += rng.choice(SPACES)
    if i % 10 == 0:
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(SPECIAL) + text[at:]
    if i % 17 == 0:
        text += rng.choice(CODE)
    if i % 29 == 0:
        text = rng.choice(SPACES) + text.upper()
    return text


print("[\n" + ",\n".join(json.dumps(line(i), ensure_ascii=False) for i in range(1000)) + "\n]")
