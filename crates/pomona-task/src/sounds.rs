//! WAV and FLAC files as numbers, whole ones scaled to -1 to 1.

use std::io::Cursor;
use std::path::Path;

use crate::error::{Result, TaskError};
use crate::limited::read_limited;

/// Largest file that is read.
const MAX_BYTES: u64 = 256 << 20;
/// Most numbers that are decoded, all channels together: a small FLAC file can hold hours of silence.
const MAX_NUMBERS: usize = 1 << 28;

/// A recording of one channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Sound {
    /// Numbers a second.
    pub rate: u32,
    /// Between -1 and 1 where the file holds whole numbers, else as the file has them; several channels are averaged.
    pub values: Vec<f32>,
}

impl Sound {
    /// Reads a WAV (whole numbers of up to 32 bits, or 32-bit floats) or FLAC file.
    ///
    /// # Errors
    /// [`TaskError::Data`] where the file is neither, is damaged, holds nothing, or is too large.
    pub fn read(path: &Path) -> Result<Sound> {
        let fail = |message: String| TaskError::Data { path: path.to_owned(), message };
        Sound::decode(&read_limited(path, MAX_BYTES)?).map_err(fail)
    }

    /// Decodes the bytes of a file; the error is a sentence without the file.
    pub(crate) fn decode(bytes: &[u8]) -> std::result::Result<Sound, String> {
        let (rate, channels, values) = match bytes {
            [b'R', b'I', b'F', b'F', ..] => wav(bytes)?,
            [b'f', b'L', b'a', b'C', ..] => flac(bytes)?,
            _ => return Err("is neither a WAV nor a FLAC file".to_owned()),
        };
        if rate == 0 || channels == 0 || values.len() < channels {
            return Err("is a recording of nothing".to_owned());
        }
        let values: Vec<f32> = match channels {
            1 => values,
            n => values.chunks_exact(n).map(|all| all.iter().sum::<f32>() / n as f32).collect(),
        };
        match values.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(format!("holds {} at number {at}", values[at])),
            None => Ok(Sound { rate, values }),
        }
    }
}

type Decoded = std::result::Result<(u32, usize, Vec<f32>), String>;
type Samples = std::result::Result<Vec<f32>, hound::Error>;

fn wav(bytes: &[u8]) -> Decoded {
    let damaged = |e: hound::Error| format!("is a damaged WAV file: {e}");
    let mut reader = hound::WavReader::new(Cursor::new(bytes)).map_err(damaged)?;
    let spec = reader.spec();
    let most = MAX_NUMBERS.min(bytes.len());
    let values = match spec.sample_format {
        hound::SampleFormat::Float => reader.samples::<f32>().take(most).collect::<Samples>(),
        hound::SampleFormat::Int => {
            let scale = 1.0 / 2_f64.powi(i32::from(spec.bits_per_sample.clamp(1, 32)) - 1);
            let value = |v: i32| (f64::from(v) * scale) as f32;
            reader.samples::<i32>().take(most).map(|v| v.map(value)).collect()
        }
    };
    Ok((spec.sample_rate, usize::from(spec.channels), values.map_err(damaged)?))
}

fn flac(bytes: &[u8]) -> Decoded {
    let damaged = |e: claxon::Error| format!("is a damaged FLAC file: {e}");
    let mut reader = claxon::FlacReader::new(Cursor::new(bytes)).map_err(damaged)?;
    let info = reader.streaminfo();
    let scale = 1.0 / 2_f64.powi(info.bits_per_sample.clamp(1, 32) as i32 - 1);
    let channels = info.channels;
    let said = info.samples.map(|n| n.saturating_mul(u64::from(channels)));
    let mut values = Vec::new();
    let mut blocks = reader.blocks();
    let mut room = Vec::new();
    while let Some(block) = blocks.read_next_or_eof(room).map_err(damaged)? {
        if block.channels() != channels {
            return Err(format!("changes from {channels} to {} channels on the way", block.channels()));
        }
        if values.len() + (block.duration() * channels) as usize > MAX_NUMBERS {
            return Err(format!("holds more than {MAX_NUMBERS} numbers: cut it into shorter recordings"));
        }
        for at in 0..block.duration() {
            values.extend((0..channels).map(|c| (f64::from(block.sample(c, at)) * scale) as f32));
        }
        room = block.into_buffer();
    }
    // A file that was cut between two blocks looks whole but for this.
    if let Some(said) = said.filter(|n| *n != values.len() as u64) {
        return Err(format!("is a damaged FLAC file: {} numbers of {said} are there", values.len()));
    }
    Ok((info.sample_rate, channels as usize, values))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn written(spec: hound::WavSpec, values: &[i32]) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
        values.iter().for_each(|v| writer.write_sample(*v).unwrap());
        writer.finalize().unwrap();
        bytes.into_inner()
    }

    /// A FLAC file of one channel of 16 bits, 4 blocks of 16 numbers, each written out: a stream's header, then frames with their sums.
    fn flac_file(said: u64) -> Vec<u8> {
        fn crc(bytes: &[u8], width: u32, poly: u32) -> u32 {
            let (top, mask) = (1 << (width - 1), (1_u64 << width) as u32 - 1);
            let step = |c: u32, _| if c & top == 0 { c << 1 } else { (c << 1) ^ poly } & mask;
            bytes.iter().fold(0, |c, b| (0..8).fold(c ^ (u32::from(*b) << (width - 8)), step))
        }
        let mut out = b"fLaC".to_vec();
        out.extend([0x80, 0, 0, 34, 0, 16, 0, 16, 0, 0, 0, 0, 0, 0]);
        // 8000 numbers a second, one channel, 16 bits, how many.
        let packed = 8000_u64 << 44 | 15 << 36 | said;
        out.extend(packed.to_be_bytes());
        out.extend([0; 16]);
        for frame in 0..4_u8 {
            let mut bytes = vec![0xFF, 0xF8, 0x64, 0x08, frame, 15];
            bytes.push(crc(&bytes, 8, 0x07) as u8);
            bytes.push(2);
            (0..16_i16).for_each(|i| bytes.extend((i16::from(frame) * 1000 + i * 8).to_be_bytes()));
            bytes.extend((crc(&bytes, 16, 0x8005) as u16).to_be_bytes());
            out.extend(bytes);
        }
        out
    }

    #[test]
    fn a_flac_file_is_whole_or_refused() {
        let whole = flac_file(64);
        let found = Sound::decode(&whole).unwrap();
        assert_eq!((found.rate, found.values.len()), (8000, 64));
        assert_eq!(found.values[17], 1008.0 / 32768.0);
        for cut in 4..whole.len() {
            let message = Sound::decode(&whole[..cut]).unwrap_err();
            assert!(message.starts_with("is a damaged FLAC file"), "{cut}: {message}");
        }
        // A byte that is another one is found by the frames' sums, or was of no use.
        for at in 4..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x41;
            if let Ok(found) = Sound::decode(&bytes) {
                assert!(at < 42 && found.values.len() == 64, "{at}");
            }
        }
    }

    #[test]
    fn channels_are_averaged_and_whole_numbers_scaled() {
        let spec = hound::WavSpec {
            channels: 2,
            sample_rate: 8000,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let bytes = written(spec, &[16384, -16384, 32767, 32767, -32768, 0]);
        let found = Sound::decode(&bytes).unwrap();
        assert_eq!((found.rate, found.values), (8000, vec![0.0, 32767.0 / 32768.0, -0.5]));
        for cut in 0..bytes.len() {
            if let Ok(part) = Sound::decode(&bytes[..cut]) {
                assert!(part.values.len() <= 3, "{cut}");
            }
        }
        let nothing = written(spec, &[]);
        assert_eq!(Sound::decode(&nothing).unwrap_err(), "is a recording of nothing");
        assert!(Sound::decode(b"fLaCxxxxxxxxxxxx").unwrap_err().starts_with("is a damaged FLAC file"));
        assert!(Sound::decode(b"OggS").unwrap_err().contains("neither"));
    }
}
