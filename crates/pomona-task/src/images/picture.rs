//! JPEG and PNG files as 8-bit RGB.

use std::io::Cursor;
use std::ops::Range;
use std::path::Path;

use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_png::PngDecoder;

use crate::error::{Result, TaskError};
use crate::limited::read_limited;

/// Longest side that is decoded: a header may ask for any.
pub(super) const MAX_SIDE: usize = 1 << 14;
/// Largest file that is read.
const MAX_BYTES: u64 = 256 << 20;

/// An 8-bit RGB picture, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height * width * 3` bytes.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// Reads a JPEG or PNG file. Grey becomes three equal channels, transparency is dropped, 16 bits become 8.
    ///
    /// # Errors
    /// [`TaskError::Data`] where the file is none of these, is damaged, or is larger than 16,384 pixels on a side.
    pub fn read(path: &Path) -> Result<Picture> {
        let fail = |message: String| TaskError::Data { path: path.to_owned(), message };
        Picture::decode(&read_limited(path, MAX_BYTES)?).map_err(fail)
    }

    /// Some of its columns.
    pub fn columns(&self, range: Range<usize>) -> Picture {
        let row = |row: &[u8]| row.get(range.start * 3..range.end * 3).unwrap_or_default().to_vec();
        let pixels = self.pixels.chunks_exact((self.width * 3).max(1)).flat_map(row).collect();
        Picture { width: range.len(), height: self.height, pixels }
    }

    /// Decodes the bytes of a JPEG or PNG file; the error is a sentence without the file.
    pub(crate) fn decode(bytes: &[u8]) -> std::result::Result<Picture, String> {
        let options = DecoderOptions::default()
            .set_max_width(MAX_SIDE)
            .set_max_height(MAX_SIDE)
            .jpeg_set_out_colorspace(ColorSpace::RGB)
            .png_set_strip_to_8bit(true);
        match bytes {
            [0xFF, 0xD8, ..] => jpeg(bytes, options),
            [0x89, b'P', b'N', b'G', ..] => png(bytes, options),
            _ => Err("is neither a JPEG nor a PNG file".to_owned()),
        }
    }
}

fn jpeg(bytes: &[u8], options: DecoderOptions) -> std::result::Result<Picture, String> {
    let mut decoder = JpegDecoder::new_with_options(Cursor::new(bytes), options);
    let pixels = decoder.decode().map_err(|e| format!("is a damaged JPEG: {e}"))?;
    let info = decoder.info().ok_or("is a JPEG without a header")?;
    whole(usize::from(info.width), usize::from(info.height), pixels, 3)
}

fn png(bytes: &[u8], options: DecoderOptions) -> std::result::Result<Picture, String> {
    let mut decoder = PngDecoder::new_with_options(Cursor::new(bytes), options);
    let pixels = decoder.decode_raw().map_err(|e| format!("is a damaged PNG: {e}"))?;
    let (width, height) = decoder.dimensions().ok_or("is a PNG without a header")?;
    let channels = decoder.colorspace().ok_or("is a PNG without a header")?.num_components();
    whole(width, height, pixels, channels)
}

/// Any number of channels as three.
fn whole(
    width: usize,
    height: usize,
    pixels: Vec<u8>,
    channels: usize,
) -> std::result::Result<Picture, String> {
    let area = width * height;
    if area == 0 || pixels.len() != area * channels {
        return Err(format!(
            "has {} bytes of pixels; {width} x {height} x {channels} were expected",
            pixels.len()
        ));
    }
    let pixels = match channels {
        3 => pixels,
        1 | 2 => pixels.chunks_exact(channels).flat_map(|p| [p[0]; 3]).collect(),
        _ => pixels.chunks_exact(channels).flat_map(|p| [p[0], p[1], p[2]]).collect(),
    };
    Ok(Picture { width, height, pixels })
}
