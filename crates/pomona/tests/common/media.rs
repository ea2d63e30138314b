//! Pictures and recordings, written here.

/// A PNG file, stored without compression, from the colour of each pixel (x, y).
pub fn picture(width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 3]) -> Vec<u8> {
    let mut raw = Vec::new();
    for y in 0..height {
        raw.push(0);
        (0..width).for_each(|x| raw.extend(pixel(x, y)));
    }
    let head = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, body) in [(b"IHDR", head), (b"IDAT", stored(&raw)), (b"IEND", vec![])] {
        out.extend((body.len() as u32).to_be_bytes());
        let named = [&kind[..], &body].concat();
        out.extend(&named);
        out.extend(crc(&named).to_be_bytes());
    }
    out
}

/// A grey PNG of 8 x 8 pixels.
pub fn png(seed: u8) -> Vec<u8> {
    picture(8, 8, |x, y| [((u32::from(seed) + 3) * (x * 37 + y * 101 + 11) % 256) as u8; 3])
}

/// Bytes as a zlib stream of stored blocks.
fn stored(raw: &[u8]) -> Vec<u8> {
    let (mut a, mut b) = (1_u32, 0_u32);
    for v in raw {
        a = (a + u32::from(*v)) % 65521;
        b = (b + a) % 65521;
    }
    let mut data = vec![0x78, 1];
    let blocks: Vec<&[u8]> = raw.chunks(65535).collect();
    for (i, block) in blocks.iter().enumerate() {
        data.push(u8::from(i + 1 == blocks.len()));
        data.extend((block.len() as u16).to_le_bytes());
        data.extend((!(block.len() as u16)).to_le_bytes());
        data.extend(*block);
    }
    data.extend((b << 16 | a).to_be_bytes());
    data
}

fn crc(bytes: &[u8]) -> u32 {
    let step = |c: u32, _: u32| if c & 1 == 1 { 0xEDB8_8320 ^ (c >> 1) } else { c >> 1 };
    !bytes.iter().fold(!0, |c, b| (0..8).fold(c ^ u32::from(*b), step))
}

/// A WAV file of one channel of 16 bits, from numbers between -1 and 1.
pub fn wav(rate: u32, values: impl Iterator<Item = f64>) -> Vec<u8> {
    let data: Vec<u8> = values.flat_map(|v| ((v * 32767.0) as i16).to_le_bytes()).collect();
    let mut out = b"RIFF".to_vec();
    out.extend((36 + data.len() as u32).to_le_bytes());
    out.extend(b"WAVEfmt ");
    out.extend([16, 0, 0, 0, 1, 0, 1, 0]);
    out.extend(rate.to_le_bytes());
    out.extend((2 * rate).to_le_bytes());
    out.extend([2, 0, 16, 0]);
    out.extend(b"data");
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
    out
}
