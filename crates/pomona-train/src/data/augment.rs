//! Changes of pictures that leave what they show: mirrored, shifted. Drawn anew for each picture each time.

use std::fmt;
use std::str::FromStr;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What may happen to a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augment {
    /// Half of the pictures are mirrored, left to right.
    pub flip: bool,
    /// Shifted by up to this many pixels each way; what comes in is black.
    pub shift: u16,
}

/// What happens to one picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    flip: bool,
    down: isize,
    right: isize,
}

impl Augment {
    /// What happens to the pictures of a batch, from the run's seed and the batch's number.
    pub(crate) fn draw(self, seed: u64, batch: u64, pictures: usize) -> Vec<Change> {
        if self == Augment::default() {
            return vec![Change::default(); pictures];
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(batch);
        let far = i32::from(self.shift);
        let mut one = || Change {
            flip: self.flip && rng.random_bool(0.5),
            down: rng.random_range(-far..=far) as isize,
            right: rng.random_range(-far..=far) as isize,
        };
        (0..pictures).map(|_| one()).collect()
    }
}

impl Change {
    /// Carries it out on a picture of planes, one after the other; `black` is each plane's value of black.
    pub(crate) fn apply(self, picture: &mut [f32], [height, width]: [usize; 2], black: &[f32]) {
        if self == Change::default() {
            return;
        }
        let before = picture.to_vec();
        let planes = picture.chunks_mut(height * width).zip(before.chunks(height * width)).zip(black);
        for ((to, from), black) in planes {
            for (y, row) in to.chunks_mut(width).enumerate() {
                let source = y.checked_add_signed(-self.down).filter(|y| *y < height);
                for (x, pixel) in row.iter_mut().enumerate() {
                    let at = x.checked_add_signed(-self.right).filter(|x| *x < width);
                    let at = at.map(|x| if self.flip { width - 1 - x } else { x });
                    *pixel = match (source, at) {
                        (Some(y), Some(x)) => from[y * width + x],
                        _ => *black,
                    };
                }
            }
        }
    }
}

impl FromStr for Augment {
    type Err = String;

    /// `flip`, `shift=N`, or both with a comma.
    fn from_str(s: &str) -> Result<Self, String> {
        let mut out = Augment::default();
        for part in s.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            match part.split_once('=') {
                None if part == "flip" => out.flip = true,
                Some(("shift", n)) => {
                    out.shift =
                        n.parse().map_err(|_| format!("`{part}`: a number of pixels was expected"))?;
                }
                _ => return Err(format!("`{part}`: flip or shift=PIXELS was expected")),
            }
        }
        Ok(out)
    }
}

impl fmt::Display for Augment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flip = self.flip.then(|| "flip".to_owned());
        let shift = (self.shift > 0).then(|| format!("shift={}", self.shift));
        f.write_str(&flip.into_iter().chain(shift).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn pictures_are_mirrored_and_shifted() {
        let whole: Vec<f32> = (1..=12).map(|v| v as f32).collect();
        let done = |flip, down, right| {
            let mut p = whole.clone();
            Change { flip, down, right }.apply(&mut p, [2, 3], &[-1.0, -2.0]);
            p
        };
        assert_eq!(done(false, 0, 0), whole);
        assert_eq!(done(true, 0, 0), [3.0, 2.0, 1.0, 6.0, 5.0, 4.0, 9.0, 8.0, 7.0, 12.0, 11.0, 10.0]);
        assert_eq!(done(false, 1, 0)[..6], [-1.0, -1.0, -1.0, 1.0, 2.0, 3.0]);
        assert_eq!(done(false, 0, -1)[6..], [8.0, 9.0, -2.0, 11.0, 12.0, -2.0]);
        assert_eq!(done(true, 0, 1)[..3], [-1.0, 3.0, 2.0]);
        assert_eq!(done(false, -2, 5), [[-1.0; 6], [-2.0; 6]].concat());
    }

    #[test]
    fn what_is_drawn_follows_from_seed_and_batch() {
        let a: Augment = "flip,shift=4".parse().unwrap();
        assert_eq!(a.to_string(), "flip,shift=4");
        assert_eq!(a.draw(1, 2, 64), a.draw(1, 2, 64));
        assert_ne!(a.draw(1, 2, 64), a.draw(1, 3, 64));
        assert_ne!(a.draw(1, 2, 64), a.draw(2, 2, 64));
        let drawn = a.draw(7, 0, 1000);
        let flips = drawn.iter().filter(|c| c.flip).count();
        assert!((400..600).contains(&flips), "{flips}");
        assert!((-4..=4).all(|d| drawn.iter().any(|c| c.down == d) && drawn.iter().any(|c| c.right == d)));
        assert!("shift=x".parse::<Augment>().unwrap_err().contains("pixels"));
        assert!("flop".parse::<Augment>().unwrap_err().contains("flip or shift"));
    }
}
