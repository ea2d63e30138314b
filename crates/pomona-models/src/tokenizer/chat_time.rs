//! `strftime` for the dates that chat templates write.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Formats a time in UTC; `None` is now. `%-d` and its like leave the leading zero out, as in the GNU C library.
pub(super) fn strftime(format: &str, seconds: Option<u64>) -> Result<String, String> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map(|d| d.as_secs()).unwrap_or(0);
    // Beyond the year 9999 a date has no meaning here.
    let seconds = seconds.unwrap_or_else(now).min(253_402_300_799);
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let hour = time / 3600;
    let hour12 = (hour + 11) % 12 + 1;
    let month_name = MONTHS[month as usize - 1];
    let day_name = DAYS[(days as usize + 4) % 7];
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next();
        let bare = directive == Some('-');
        if bare {
            directive = chars.next();
        }
        let two = |n: u64| if bare { n.to_string() } else { format!("{n:02}") };
        let text = match directive {
            Some('Y') => year.to_string(),
            Some('y') => two(year % 100),
            Some('m') => two(month),
            Some('d') => two(day),
            Some('e') => format!("{day:>2}"),
            Some('B') => month_name.to_owned(),
            Some('b' | 'h') => month_name[..3].to_owned(),
            Some('A') => day_name.to_owned(),
            Some('a') => day_name[..3].to_owned(),
            Some('H') => two(hour),
            Some('I') => two(hour12),
            Some('M') => two(time / 60 % 60),
            Some('S') => two(time % 60),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{:02}:{:02}:{:02}", hour, time / 60 % 60, time % 60),
            Some('%') => "%".to_owned(),
            Some(other) => return Err(format!("strftime_now: `%{other}` is not known")),
            None => return Err("strftime_now: the format ends within a directive".to_owned()),
        };
        out.push_str(&text);
    }
    Ok(out)
}

/// Year, month and day of a number of days since 1970-01-01 in the Gregorian calendar.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::strftime;

    #[test]
    fn dates_as_date_prints_them() {
        let check =
            |seconds, format, expected: &str| assert_eq!(strftime(format, Some(seconds)).unwrap(), expected);
        check(0, "%A %d %B %Y %H:%M:%S", "Thursday 01 January 1970 00:00:00");
        check(1_709_208_000, "%d %b %Y", "29 Feb 2024");
        check(1_735_689_599, "%a %-d %h %y %I %p %F %T", "Tue 31 Dec 24 11 PM 2024-12-31 23:59:59");
        check(4_107_542_400, "%e|%-m|100%%", " 1|3|100%");
        assert!(strftime("%Q", Some(0)).is_err());
        assert!(strftime("%", Some(0)).is_err());
    }
}
