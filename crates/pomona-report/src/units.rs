//! Numbers for people: one decimal and a unit.

const COUNTS: [&str; 5] = ["", " K", " M", " B", " T"];
const SI: [&str; 6] = ["", " k", " M", " G", " T", " P"];
const BYTES: [&str; 6] = [" B", " kB", " MB", " GB", " TB", " PB"];

/// `134.5 M`, `6.7 B`: parameters.
pub fn parameters(n: u64) -> String {
    scaled(n, &COUNTS)
}

/// `17.4 G`: multiply-accumulates and operations.
pub fn operations(n: u64) -> String {
    scaled(n, &SI)
}

/// `1.3 GB`, powers of ten.
pub fn bytes(n: u64) -> String {
    scaled(n, &BYTES)
}

/// `6,738,415,616`.
pub fn exact(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `12.3 ms`; `0 s` for nothing.
pub fn seconds(t: f64) -> String {
    let (factor, unit) = match t {
        0.0 => return "0 s".to_owned(),
        t if t < 0.999_95e-3 => (1e6, "us"),
        t if t < 0.999_95 => (1e3, "ms"),
        t if t < 120.0 => (1.0, "s"),
        t if t < 7200.0 => (1.0 / 60.0, "min"),
        _ => (1.0 / 3600.0, "h"),
    };
    format!("{:.1} {unit}", t * factor)
}

/// `82.0 %` of a whole; a dash where the whole is nothing.
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
}

/// `-18.0 %`: the change from one number to another.
pub fn change(before: u64, after: u64) -> String {
    if before == 0 {
        "-".to_owned()
    } else {
        format!("{:+.1} %", 100.0 * (after as f64 / before as f64 - 1.0))
    }
}

fn scaled(n: u64, units: &[&str]) -> String {
    if n < 1000 {
        return format!("{n}{}", units[0]);
    }
    let mut value = n as f64;
    let mut unit = 0;
    // 999.95 would print as 1000.0.
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(parameters(134_515_008), "134.5 M");
        assert_eq!(parameters(6_738_415_616), "6.7 B");
        assert_eq!(parameters(999), "999");
        assert_eq!(parameters(999_940), "999.9 K");
        assert_eq!(parameters(999_960), "1.0 M");
        assert_eq!(operations(17_430_000_000), "17.4 G");
        assert_eq!(bytes(1_345_000_000), "1.3 GB");
        assert_eq!(bytes(12), "12 B");
        assert_eq!(bytes(u64::MAX), "18446.7 PB");
        assert_eq!(exact(6_738_415_616), "6,738,415,616");
        assert_eq!(exact(0), "0");
        assert_eq!(exact(1000), "1,000");
    }

    #[test]
    fn times_and_shares_read_well() {
        assert_eq!(seconds(0.0), "0 s");
        assert_eq!(seconds(0.000_999_96), "1.0 ms");
        assert_eq!(seconds(0.000_12), "120.0 us");
        assert_eq!(seconds(0.0186), "18.6 ms");
        assert_eq!(seconds(90.0), "90.0 s");
        assert_eq!(seconds(4000.0), "66.7 min");
        assert_eq!(share(26, 32), "81.2 %");
        assert_eq!(share(1, 0), "-");
        assert_eq!(change(6_738_415_616, 5_524_115_456), "-18.0 %");
        assert_eq!(change(5, 5), "+0.0 %");
    }
}
