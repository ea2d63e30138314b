//! PyTorch files that want to run something, or lie.

use super::{Attack, attacks};

/// A pickle, instruction by instruction.
#[derive(Clone, Default)]
pub struct Pickle(pub Vec<u8>);

impl Pickle {
    pub fn op(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub fn text(self, s: &str) -> Self {
        self.op(b"X").op(&(s.len() as u32).to_le_bytes()).op(s.as_bytes())
    }

    pub fn int(self, n: i64) -> Self {
        self.op(&[0x8a, 8]).op(&n.to_le_bytes())
    }

    pub fn global(self, module: &str, name: &str) -> Self {
        self.op(format!("c{module}\n{name}\n").as_bytes())
    }

    pub fn ints(self, ns: &[i64]) -> Self {
        ns.iter().fold(self.op(b"("), |p, n| p.int(*n)).op(b"t")
    }

    /// A float storage of `len` elements under key `0`.
    pub fn storage(self, key: &str, len: i64) -> Self {
        let p = self.op(b"(").text("storage").global("torch", "FloatStorage");
        p.text(key).text("cpu").int(len).op(b"tQ")
    }

    pub fn tensor(self, key: &str, len: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Self {
        let p = self.global("torch._utils", "_rebuild_tensor_v2").op(b"(").storage(key, len);
        let p = p.int(offset).ints(shape).ints(strides).op(&[0x89]).op(b")");
        p.op(b"tR")
    }

    pub fn end(self) -> Vec<u8> {
        self.op(b".").0
    }
}

pub fn pickle() -> Pickle {
    Pickle(vec![0x80, 2])
}

/// A state dict of one tensor `w`.
pub fn one(key: &str, len: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    pickle().op(b"}").text("w").tensor(key, len, offset, shape, strides).op(b"s").end()
}

#[derive(Clone)]
pub struct Entry {
    pub name: String,
    pub data: Vec<u8>,
    pub method: u16,
    pub flags: u16,
}

pub fn entry(name: &str, data: &[u8]) -> Entry {
    Entry { name: name.to_owned(), data: data.to_vec(), method: 0, flags: 0 }
}

/// An archive; `change` sees the directory's records before they are written.
pub fn archive(entries: &[Entry], change: impl Fn(usize, &mut Vec<u8>)) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (i, e) in entries.iter().enumerate() {
        let at = out.len() as u32;
        let size = (e.data.len() as u32).to_le_bytes();
        let common = [&e.flags.to_le_bytes()[..], &e.method.to_le_bytes(), &[0; 8], &size, &size].concat();
        let name = (e.name.len() as u16).to_le_bytes();
        let parts = [b"PK\x03\x04\0\0", &common[..], &name, &[0, 0], e.name.as_bytes(), &e.data];
        out.extend(parts.concat());
        let head = [b"PK\x01\x02\0\0\0\0", &common[..], &name, &[0; 12]].concat();
        let mut record = [&head[..], &at.to_le_bytes(), e.name.as_bytes()].concat();
        change(i, &mut record);
        directory.extend(record);
    }
    let (at, len, n) = (out.len() as u32, directory.len() as u32, entries.len() as u16);
    out.extend(directory);
    out.extend([b"PK\x05\x06\0\0\0\0", &n.to_le_bytes()[..], &n.to_le_bytes()].concat());
    out.extend([&len.to_le_bytes()[..], &at.to_le_bytes(), &[0, 0]].concat());
    out
}

pub fn zip(pickle: &[u8], storage: usize) -> Vec<u8> {
    archive(&[entry("m/data.pkl", pickle), entry("m/data/0", &vec![0; storage])], |_, _| {})
}

pub fn legacy(object: &[u8], keys: &[&str], elements: u64, bytes: usize) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let system = pickle().op(b"}").text("little_endian").op(&[0x88]).op(b"s").end();
    let list = keys.iter().fold(pickle().op(b"]"), |p, k| p.text(k).op(b"a")).end();
    let version = pickle().int(1001).end();
    let data = vec![0; bytes];
    [magic, &version[..], &system, object, &list, &elements.to_le_bytes(), &data].concat()
}

/// Pickles that ask for what could run.
pub fn forbidden() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let call = |p: Pickle| p.op(b"(").text("touch owned").op(b"tR.").0;
    let stack = |module: &str, name: &str| pickle().text(module).text(name).op(&[0x93]);
    vec![
        ("os.system", call(pickle().global("os", "system")), "`os.system`, which is not allowed"),
        (
            "posix.system",
            call(pickle().global("posix", "system")),
            "GLOBAL at byte 2: asks for `posix.system`",
        ),
        (
            "stack global",
            call(stack("builtins", "eval")),
            "STACK_GLOBAL at byte 24: asks for `builtins.eval`",
        ),
        ("getattr", call(pickle().global("builtins", "getattr")), "`builtins.getattr`"),
        ("import", call(pickle().global("importlib", "import_module")), "`importlib.import_module`"),
        ("torch.load", call(pickle().global("torch", "load")), "`torch.load`"),
        ("hub", call(pickle().global("torch.hub", "load")), "`torch.hub.load`"),
        ("a module", call(pickle().global("torch.nn.modules.conv", "Conv2d")), "state_dict()"),
        ("instance", pickle().op(b"(ios\nsystem\n.").0, "INST at byte 3: is not among the instructions"),
        ("object", pickle().op(b"(o.").0, "OBJ at byte 3"),
        ("extension", pickle().op(&[0x82, 1]).end(), "EXT at byte 2"),
        ("text persistent id", pickle().op(b"Pkey\n.").0, "PERSID at byte 2"),
        ("keyword construction", pickle().op(b")}\x92.").0, "NEWOBJ_EX at byte 4"),
        ("unknown", pickle().op(&[0xfe]).end(), "instruction 0xfe at byte 2"),
        ("call of a tuple", pickle().op(b"))R.").0, "REDUCE at byte 4: a tuple cannot be called"),
        ("call of a type", pickle().global("torch", "FloatStorage").op(b")R.").0, "a type cannot be called"),
        ("state of a tuple", pickle().op(b")}b.").0, "BUILD at byte 4: a tuple has no state"),
    ]
}

/// Pickles that break off, or ask for what is not there.
pub fn broken() -> Vec<Attack> {
    let cases = [
        ("empty", vec![], "ends at byte 0 without STOP"),
        ("no stop", pickle().op(b"}").0, "ends at byte 3 without STOP: the file is truncated"),
        ("stack underflow", pickle().op(b"0.").0, "POP at byte 2: the stack is empty"),
        ("tuple underflow", pickle().op(&[0x87]).end(), "TUPLE3 at byte 2: needs 3 values and 0"),
        ("no mark", pickle().op(b"t.").0, "TUPLE at byte 2: no mark was set"),
        ("below a mark", pickle().op(b"N(0.").0, "POP at byte 4: the stack is empty"),
        ("memo", pickle().op(b"h\x07.").0, "BINGET at byte 2: entry 7 was never stored"),
        ("long text", pickle().op(b"X\xff\xff\xff\xff.").0, "BINUNICODE at byte 2: needs 4294967295 bytes"),
        ("longer text", pickle().op(b"\x8d").op(&[0xff; 8]).end(), "needs 18446744073709551615 bytes"),
        ("long number", pickle().op(b"\x8b\xff\xff\xff\x7f.").0, "LONG4 at byte 2: needs 2147483647 bytes"),
        ("long name", pickle().op(b"c").op(&[b'a'; 2000]).end(), "a line of at most 1024 bytes"),
        ("odd entries", pickle().op(b"}(Nu.").0, "SETITEMS at byte 5: a key has no value"),
        ("entries of a tuple", pickle().op(b")(NNu.").0, "a tuple takes no entries"),
        ("marks", pickle().op(&[b'('; 70_000]).end(), "more than 65536 marks"),
        ("no tensors", pickle().op(b"}.").0, "holds a dictionary without tensors"),
        ("a number", pickle().int(7).end(), "holds an integer without tensors"),
    ];
    attacks(cases.map(|(name, object, part)| (name, zip(&object, 0), part)))
}

/// Descriptions of tensors that do not fit their storage.
pub fn tensors() -> Vec<Attack> {
    let big = 1 << 62;
    let cases = [
        ("beyond", one("0", 6, 0, &[7], &[1]), "tensor `w`: reaches beyond its storage `0` of 6 elements"),
        ("offset", one("0", 6, 5, &[2], &[1]), "reaches beyond"),
        ("stride", one("0", 6, 0, &[2, 2], &[5, 2]), "strides [5, 2]"),
        ("huge stride", one("0", 6, 0, &[3], &[big]), "reaches beyond"),
        ("overflowing strides", one("0", 6, 0, &[5, 5], &[big, big]), "reaches beyond"),
        ("huge offset", one("0", 6, big, &[1], &[1]), "overflows"),
        ("huge shape", one("0", 6, 0, &[1 << 40, 1 << 40], &[0, 0]), "overflows"),
        ("hidden overflow", one("0", 6, 0, &[0, 1 << 40, 1 << 40], &[0, 0, 0]), "overflows"),
        ("repeated", one("0", 6, 0, &[1 << 40], &[0]), "repeats elements: too large for its file"),
        ("negative size", one("0", 6, 0, &[-1], &[1]), "the shape has -1"),
        ("negative stride", one("0", 6, 5, &[6], &[-1]), "the strides has -1"),
        ("negative offset", one("0", 6, -1, &[1], &[1]), "the offset has -1"),
        ("negative storage", one("0", -1, 0, &[1], &[1]), "storage's length has -1"),
        ("ranks", one("0", 6, 0, &[2, 3], &[1]), "2 axes and 1 strides"),
        ("rank", one("0", 6, 0, &[1; 100], &[1; 100]), "100 axes; at most 64"),
        ("large storage", one("0", 7, 0, &[1], &[1]), "should have 28 bytes from byte 0 on; the file has 24"),
        ("huge storage", one("0", i64::MAX, 0, &[1], &[1]), "overflows"),
        ("no such storage", one("1", 6, 0, &[1], &[1]), "storage `1`, which the file does not hold"),
        ("another folder", one("../data.pkl", 1, 0, &[1], &[1]), "does not hold"),
        (
            "an empty name",
            pickle().op(b"}").text("").tensor("0", 6, 0, &[6], &[1]).op(b"s").end(),
            "has no name",
        ),
        ("the same name twice", twice(), "stands twice"),
        ("many repetitions", repeated(), "repeats elements"),
    ];
    attacks(cases.map(|(name, object, part)| (name, zip(&object, 24), part)))
}

fn twice() -> Vec<u8> {
    let w = |p: Pickle| p.text("w").tensor("0", 6, 0, &[6], &[1]).op(b"s");
    w(w(pickle().op(b"}"))).end()
}

/// Several modest repetitions add up.
fn repeated() -> Vec<u8> {
    let one = |p: Pickle, i| p.text(&format!("w{i}")).tensor("0", 6, 0, &[1 << 20], &[0]).op(b"s");
    (0..40).fold(pickle().op(b"}"), one).end()
}

/// Objects that grow without end when they are walked.
pub fn bombs() -> Vec<Attack> {
    // A dictionary that holds itself.
    let own = pickle().op(b"}q\x00").text("a").op(b"h\x00s");
    let own = own.text("w").tensor("0", 6, 0, &[6], &[1]).op(b"s").end();
    let own = ("itself", zip(&own, 24), "under more than 32 dictionaries");
    // Each level holds the one below twice: 2^30 paths to one tensor.
    let mut shared = pickle().tensor("0", 6, 0, &[6], &[1]).op(b"q\x00");
    for _ in 0..30 {
        shared = shared.op(b"0}(").text("a").op(b"h\x00").text("b").op(b"h\x00uq\x00");
    }
    let shared = ("doubling", zip(&shared.end(), 24), "gives its tensors more names");
    // Lists within lists, which a recursive reader would overflow its stack on.
    let deep = Pickle(vec![0x80, 2].into_iter().chain([b']'; 200_000]).chain([b'a'; 199_999]).collect());
    let deep = ("deep", zip(&deep.end(), 0), "under more than 32 dictionaries");
    let name = pickle().op(b"}").text(&"n".repeat(5000)).tensor("0", 6, 0, &[6], &[1]).op(b"s");
    let name = ("long name", zip(&name.end(), 24), "a name of more than 4096 bytes");
    let worth = "bytes of pickle are worth";
    let rows = [("memo", &[0x94_u8][..]), ("objects", b"}0"), ("items", b"]N\x85a"), ("tuples", b"N\x850")];
    let row = |(name, code): (&'static str, &[u8])| {
        (name, zip(&pickle().op(b"]").op(&code.repeat(3 << 20)).end(), 0), worth)
    };
    let mut out = attacks([own, shared, deep, name]);
    out.extend(attacks(rows.map(row)));
    out.extend(attacks([(
        "values",
        zip(&pickle().op(&[b'N'; 1 << 20]).end(), 0),
        "values are on the stack",
    )]));
    out
}

/// Archives whose directory, entries and headers disagree.
pub fn archives() -> Vec<Attack> {
    let w = one("0", 6, 0, &[6], &[1]);
    let good = [entry("m/data.pkl", &w), entry("m/data/0", &[0; 24])];
    let edit = |at: usize, with: &'static [u8]| {
        move |i: usize, record: &mut Vec<u8>| {
            if i == 1 {
                record[at..at + with.len()].copy_from_slice(with);
            }
        }
    };
    let with = |f: fn(&mut Entry)| {
        let mut entries = good.to_vec();
        f(&mut entries[1]);
        archive(&entries, |_, _| {})
    };
    let huge = [0xfe, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff];
    let duplicate = [good[0].clone(), good[1].clone(), good[1].clone()];
    let two = [good[0].clone(), good[1].clone(), entry("n/data.pkl", &w)];
    let mut out = attacks([
        ("compressed", with(|e| e.method = 8), "entry `m/data/0` is compressed (method 8)"),
        ("encrypted", with(|e| e.flags = 1), "entry `m/data/0` is encrypted"),
        ("other method", archive(&good, edit(10, &[8, 0])), "compressed"),
        ("other header", archive(&good, edit(42, &[0; 4])), "another entry in its own header at byte 0"),
        ("header outside", archive(&good, edit(42, &[0xff, 0xff, 0, 0])), "has no header at byte 65535"),
        ("other name", archive(&good, edit(46, b"x")), "`x/data/0` is another entry"),
        ("sizes differ", archive(&good, edit(20, &[9])), "has the sizes 9 and 24"),
        ("too large", archive(&good, edit(20, &[0x80, 0, 0, 0, 0x80])), "reaches into the zip directory"),
        ("enormous", archive(&good, move |i, r| edit_all(i, r, &huge)), "reaches into the zip directory"),
        ("64-bit size missing", archive(&good, edit(20, &[0xff; 8])), "reaches into the zip directory"),
        ("twice", archive(&duplicate, |_, _| {}), "stands twice in the zip directory"),
        ("two pickles", archive(&two, |_, _| {}), "has more than one data.pkl"),
        ("no pickle", archive(&good[1..], |_, _| {}), "without data.pkl"),
        ("nothing", archive(&[], |_, _| {}), "without data.pkl"),
    ]);
    // An entry inside another one.
    let inner = archive(&good[1..], |_, _| {});
    let nested = [good[0].clone(), entry("m/pad", &inner), good[1].clone()];
    let at = (30 + 10 + w.len() + 30 + 5) as u32;
    let overlap = archive(&nested, |i, r| {
        if i == 2 {
            r[42..46].copy_from_slice(&at.to_le_bytes());
        }
    });
    let whole = archive(&good, |_, _| {});
    let n = whole.len();
    let patch = |at: usize, with: &[u8]| {
        let mut bytes = whole.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    };
    out.extend(attacks([
        ("overlap", overlap, "entries `m/pad` and `m/data/0` overlap"),
        ("small count", patch(n - 12, &[3]), "its zip directory"),
        ("large count", patch(n - 12, &[0xff, 0xff]), "has 2 entries and says"),
        ("length", patch(n - 10, &[0xff, 0xff]), "reaches beyond its end"),
        ("offset", patch(n - 6, &[0xff, 0xff]), "reaches beyond its end"),
        ("trailing bytes", [&whole[..], &[0; 10]].concat(), "has no zip directory at its end"),
        ("four bytes", b"PK\x03\x04".to_vec(), "has only a few bytes"),
    ]));
    out
}

fn edit_all(i: usize, record: &mut [u8], with: &[u8]) {
    if i == 1 {
        record[20..20 + with.len()].copy_from_slice(with);
    }
}

/// Files of the older format.
pub fn legacies() -> Vec<Attack> {
    let w = one("0", 6, 0, &[6], &[1]);
    let version = |n: i64| {
        let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
        [&magic[..], &pickle().int(n).end()].concat()
    };
    let big = pickle().op(b"}").text("little_endian").op(&[0x89]).op(b"s").end();
    let keys = pickle().op(b"].").0;
    attacks([
        ("truncated data", legacy(&w, &["0"], 6, 23), "storage `0` of 6 elements"),
        ("huge storage", legacy(&w, &["0"], u64::MAX, 24), "reaches beyond the file"),
        ("overflow", legacy(&w, &["0"], 1 << 62, 24), "reaches beyond the file"),
        ("small storage", legacy(&w, &["0"], 5, 24), "should have 24 bytes from byte 0 on; the file has 20"),
        ("missing storage", legacy(&w, &[], 6, 24), "storage `0`, which the file does not hold"),
        ("unused storage", legacy(&w, &["0", "7"], 6, 24), "storage `7` is used by nothing"),
        ("same key twice", legacy(&w, &["0", "0"], 0, 24), "storage `0` stands twice"),
        ("version", version(1002), "protocol version Int(1002)"),
        ("big-endian", [version(1001), big, w.clone(), keys].concat(), "big-endian"),
        ("plain pickle", w.clone(), "neither a zip archive nor a pickle with PyTorch's magic number"),
        ("few bytes", b"\x80\x02.".to_vec(), "has only a few bytes"),
    ])
}
