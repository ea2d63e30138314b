//! WAV and FLAC files as numbers between -1 and 1.

use std::io::Cursor;
use std::path::Path;

use crate::error::{Result, TaskError};

/// Largest file that is read.
const MAX_BYTES: u64 = 256 << 20;
/// Most numbers that are decoded, all channels together: a small FLAC file can hold hours of silence.
const MAX_NUMBERS: usize = 1 << 28;

/// A recording of one channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Sound {
    /// Numbers a second.
    pub rate: u32,
    /// Between -1 and 1; several channels are averaged.
    pub values: Vec<f32>,
}

impl Sound {
    /// Reads a WAV (whole numbers of up to 32 bits, or 32-bit floats) or FLAC file.
    ///
    /// # Errors
    /// [`TaskError::Data`] where the file is neither, is damaged, holds nothing, or is too large.
    pub fn read(path: &Path) -> Result<Sound> {
        let fail = |message: String| TaskError::Data { path: path.to_owned(), message };
        let size = std::fs::metadata(path).map_err(|e| fail(e.to_string()))?.len();
        if size > MAX_BYTES {
            return Err(fail(format!("has {size} bytes; a recording of at most {MAX_BYTES} was expected")));
        }
        let bytes = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
        Sound::decode(&bytes).map_err(fail)
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
    let mut values = Vec::new();
    for value in reader.samples() {
        if values.len() == MAX_NUMBERS {
            return Err(format!("holds more than {MAX_NUMBERS} numbers: cut it into shorter recordings"));
        }
        values.push((f64::from(value.map_err(damaged)?) * scale) as f32);
    }
    Ok((info.sample_rate, info.channels as usize, values))
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
