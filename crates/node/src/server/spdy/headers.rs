//! Name and value blocks (SPDY Protocol Draft 3, section 2.6.10) under zlib.
//!
//! One compressor and one decompressor live as long as their connection: each block continues the
//! stream of the one before, so every block has to pass through, wanted or not.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::dictionary::DICTIONARY;

/// Largest block after decompression, bytes. kubectl's blocks are below 200.
const MAX_BLOCK: usize = 64 * 1024;

/// Headers of a stream: lower-case names and their values, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers(pub(crate) Vec<(String, String)>);

impl Headers {
    /// The value of a header; `name` in any case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// A block can't be read; the connection is lost, because the compression state is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("the header block is not valid zlib data")]
    Zlib,
    #[error("the header block is larger than {MAX_BLOCK} bytes")]
    TooLarge,
    #[error("the header block is shorter than it says")]
    Truncated,
    #[error("a header is not UTF-8")]
    Text,
}

/// Reads a peer's blocks.
#[derive(Debug)]
pub(crate) struct HeaderDecoder(Decompress);

impl HeaderDecoder {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// Reads the next block.
    pub(crate) fn decode(&mut self, block: &[u8]) -> Result<Headers, HeaderError> {
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, HeaderError> {
        let mut out = Vec::new();
        let mut chunk = [0u8; 4096];
        loop {
            let (before_in, before_out) = (self.0.total_in(), self.0.total_out());
            let result = self.0.decompress(block, &mut chunk, FlushDecompress::Sync);
            let read = usize::try_from(self.0.total_in() - before_in).unwrap_or(block.len());
            let written = usize::try_from(self.0.total_out() - before_out).unwrap_or(0);
            block = block.get(read..).unwrap_or_default();
            out.extend_from_slice(&chunk[..written.min(chunk.len())]);
            if out.len() > MAX_BLOCK {
                return Err(HeaderError::TooLarge);
            }
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(&DICTIONARY)
                        .map_err(|_| HeaderError::Zlib)?;
                }
                Err(_) => return Err(HeaderError::Zlib),
                // A full chunk may have left output inside; otherwise all of the block is out.
                Ok(_) if written == chunk.len() => {}
                Ok(_) if block.is_empty() => return Ok(out),
                Ok(_) if read == 0 && written == 0 => return Err(HeaderError::Zlib),
                Ok(_) => {}
            }
        }
    }
}

fn parse(block: &[u8]) -> Result<Headers, HeaderError> {
    let mut rest = block;
    let count = take_u32(&mut rest)?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let name = take_text(&mut rest)?.to_ascii_lowercase();
        let value = take_text(&mut rest)?;
        headers.push((name, value));
    }
    Ok(Headers(headers))
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, HeaderError> {
    let (number, after) = rest
        .split_first_chunk::<4>()
        .ok_or(HeaderError::Truncated)?;
    *rest = after;
    Ok(u32::from_be_bytes(*number))
}

fn take_text(rest: &mut &[u8]) -> Result<String, HeaderError> {
    let length = usize::try_from(take_u32(rest)?).map_err(|_| HeaderError::Truncated)?;
    let (text, after) = rest
        .split_at_checked(length)
        .ok_or(HeaderError::Truncated)?;
    *rest = after;
    String::from_utf8(text.to_vec()).map_err(|_| HeaderError::Text)
}

/// Writes our blocks.
#[derive(Debug)]
pub(crate) struct HeaderEncoder(Compress);

impl HeaderEncoder {
    pub(crate) fn new() -> Result<Self, HeaderError> {
        let mut compress = Compress::new(Compression::fast(), true);
        compress
            .set_dictionary(&DICTIONARY)
            .map_err(|_| HeaderError::Zlib)?;
        Ok(Self(compress))
    }

    /// Writes the next block.
    pub(crate) fn encode(&mut self, headers: &Headers) -> Result<Vec<u8>, HeaderError> {
        let mut block = Vec::new();
        put_length(&mut block, headers.0.len())?;
        for (name, value) in &headers.0 {
            for text in [name, value] {
                put_length(&mut block, text.len())?;
                block.extend_from_slice(text.as_bytes());
            }
        }
        let mut out = Vec::with_capacity(block.len() + 64);
        let start = self.0.total_in();
        loop {
            let done = usize::try_from(self.0.total_in() - start).unwrap_or(block.len());
            let rest = block.get(done..).unwrap_or_default();
            out.reserve(64);
            self.0
                .compress_vec(rest, &mut out, FlushCompress::Sync)
                .map_err(|_| HeaderError::Zlib)?;
            let done = usize::try_from(self.0.total_in() - start).unwrap_or(block.len());
            // Room left over means that the flush is complete.
            if done >= block.len() && out.len() < out.capacity() {
                return Ok(out);
            }
        }
    }
}

fn put_length(block: &mut Vec<u8>, length: usize) -> Result<(), HeaderError> {
    let length = u32::try_from(length).map_err(|_| HeaderError::TooLarge)?;
    block.extend_from_slice(&length.to_be_bytes());
    Ok(())
}
