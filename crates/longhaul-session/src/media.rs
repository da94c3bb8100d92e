//! What a file is, judged by its bytes: its name says only what kind of text it is, and what is in an archive.

/// What files are whose kind is not known.
pub const UNKNOWN: &str = "application/octet-stream";

/// How files of a kind begin.
const BEGINNINGS: [(&[u8], &str); 14] = [
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"%PDF-", "application/pdf"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b", "application/gzip"),
];

/// Kinds whose name stands a few bytes in, behind what all containers of their sort begin with.
const CONTAINERS: [(&[u8], usize, &[u8], &str); 7] = [
    (b"RIFF", 8, b"WEBP", "image/webp"),
    (b"RIFF", 8, b"WAVE", "audio/wav"),
    (b"", 4, b"ftypheic", "image/heic"),
    (b"", 4, b"ftypavif", "image/avif"),
    (b"", 4, b"ftypqt", "video/quicktime"),
    (b"", 4, b"ftyp", "video/mp4"),
    (b"\x1a\x45\xdf\xa3", 0, b"", "video/webm"),
];

/// Texts whose kind models make something of, by the ending of their name.
const TEXTS: [(&str, &str); 8] = [
    ("md", "text/markdown"),
    ("csv", "text/csv"),
    ("html", "text/html"),
    ("css", "text/css"),
    ("xml", "text/xml"),
    ("json", "application/json"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
];

/// What an archive really is, by the ending of its name.
const ARCHIVES: [(&str, &str); 3] = [
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
];

/// Returns the media type of a file; [`UNKNOWN`] if it is nothing that is known here.
#[must_use]
pub fn media_type(bytes: &[u8], name: &str) -> &'static str {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).unwrap_or_default();
    let named = |kinds: &[(&str, &'static str)]| {
        kinds.iter().find(|(it, _)| *it == ending).map(|(_, media_type)| *media_type)
    };
    let within = CONTAINERS.iter().find(|(begins, at, holds, _)| {
        bytes.starts_with(begins) && bytes.get(*at..).is_some_and(|rest| rest.starts_with(holds))
    });
    if let Some((_, _, _, media_type)) = within {
        return media_type;
    }
    // A text may begin as an old picture or a song does.
    if is_readable(bytes) && !bytes.starts_with(b"%PDF-") {
        return named(&TEXTS).unwrap_or("text/plain");
    }
    match BEGINNINGS.iter().find(|(begins, _)| bytes.starts_with(begins)) {
        Some((_, "application/zip")) => named(&ARCHIVES).unwrap_or("application/zip"),
        Some((_, media_type)) => media_type,
        None => UNKNOWN,
    }
}

/// Tells whether a file of a media type is a text, which every model can read.
#[must_use]
pub fn is_text(media_type: &str) -> bool {
    media_type.starts_with("text/") || TEXTS.iter().any(|(_, text)| *text == media_type)
}

fn is_readable(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::{UNKNOWN, media_type};

    #[test]
    fn a_file_is_what_its_bytes_say_and_not_what_its_name_says() {
        let cases: [(&[u8], &str, &str); 18] = [
            (b"\x89PNG\r\n\x1a\n\0\0", "holiday.jpg", "image/png"),
            (b"\xff\xd8\xff\xe0\0", "a.png", "image/jpeg"),
            (b"GIF89a\x01\0", "a", "image/gif"),
            (b"RIFF\x10\0\0\0WEBPVP8 ", "a.gif", "image/webp"),
            (b"RIFF\x10\0\0\0WAVEfmt ", "a", "audio/wav"),
            (b"%PDF-1.7\n%\xe2\xe3", "a.txt", "application/pdf"),
            (b"%PDF-1.4\nplain", "a.txt", "application/pdf"),
            (b"\0\0\0\x18ftypheic", "a.png", "image/heic"),
            (b"\0\0\0\x18ftypisom", "a.png", "video/mp4"),
            (b"PK\x03\x04\x14\0", "a.png", "application/zip"),
            (
                b"PK\x03\x04\x14\0",
                "A.DOCX",
                "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            ),
            (b"Plain words.\n", "a.png", "text/plain"),
            (b"BMX bicycles\n", "a.bmp", "text/plain"),
            (b"# Plan\n", "PLAN.MD", "text/markdown"),
            (b"{}", "a.json", "application/json"),
            (b"", "empty", "text/plain"),
            (b"words\0and", "a.txt", UNKNOWN),
            (b"caf\xe9", "a.txt", UNKNOWN),
        ];
        for (bytes, name, expected) in cases {
            assert_eq!(media_type(bytes, name), expected, "{name}: {bytes:?}");
        }
    }
}
