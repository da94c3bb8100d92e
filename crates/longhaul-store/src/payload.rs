//! How contents and artifacts are packed: as they are, compressed, or kept apart. Callers of the
//! store never see the difference.

use std::borrow::Cow;

use longhaul_session::id::Digest;
use longhaul_session::log::SealedEntry;
use miniz_oxide::deflate::compress_to_vec_zlib;
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;

use crate::limits::{ARTIFACT_OVER_BYTES, COMPRESS_OVER_BYTES, MAX_PAYLOAD_BYTES};

/// Fast; text still shrinks to about a third.
const DEFLATE_LEVEL: u8 = 3;

/// Values of the `encoding` columns.
pub(crate) const PLAIN: i16 = 0;
pub(crate) const DEFLATED: i16 = 1;
pub(crate) const ARTIFACT: i16 = 2;

/// Bytes as a column holds them.
pub(crate) struct Packed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) encoding: i16,
}

/// An entry ready to be inserted.
pub(crate) struct PackedEntry {
    /// The entry; its content has moved to the other fields.
    pub(crate) entry: SealedEntry,
    /// What the content column holds.
    pub(crate) content: Option<Packed>,
    /// What is kept apart, under the digest that the content column holds.
    pub(crate) artifact: Option<(Digest, Packed)>,
}

/// Packs bytes, compressed where that is worth it.
pub(crate) fn pack(bytes: Vec<u8>) -> Packed {
    if bytes.len() > COMPRESS_OVER_BYTES {
        let deflated = compress_to_vec_zlib(&bytes, DEFLATE_LEVEL);
        if deflated.len() < bytes.len() {
            return Packed { bytes: deflated, encoding: DEFLATED };
        }
    }
    Packed { bytes, encoding: PLAIN }
}

/// Packs an entry.
pub(crate) fn pack_entry(mut entry: SealedEntry) -> PackedEntry {
    match entry.content.take() {
        None => PackedEntry { entry, content: None, artifact: None },
        Some(bytes) if bytes.len() > ARTIFACT_OVER_BYTES => {
            let digest = Digest::of(&bytes);
            let content = Packed { bytes: digest.0.to_vec(), encoding: ARTIFACT };
            PackedEntry { entry, content: Some(content), artifact: Some((digest, pack(bytes))) }
        }
        Some(bytes) => PackedEntry { entry, content: Some(pack(bytes)), artifact: None },
    }
}

/// Says whether packing is work enough to leave the caller's thread.
pub(crate) fn is_slow(entries: &[SealedEntry]) -> bool {
    let len = |entry: &SealedEntry| entry.content.as_ref().map_or(0, Vec::len);
    entries.iter().any(|entry| len(entry) > COMPRESS_OVER_BYTES)
}

/// Unpacks what [`pack`] packed; a text for people when it cannot.
pub(crate) fn unpack(packed: Packed) -> Result<Vec<u8>, Cow<'static, str>> {
    match packed.encoding {
        PLAIN => Ok(packed.bytes),
        DEFLATED => decompress_to_vec_zlib_with_limit(&packed.bytes, MAX_PAYLOAD_BYTES)
            .map_err(|error| format!("compressed bytes cannot be read: {error}").into()),
        other => Err(format!("bytes have the unknown encoding {other}").into()),
    }
}
