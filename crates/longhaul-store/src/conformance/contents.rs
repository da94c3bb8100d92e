//! Contents and artifacts: whatever their size they come back, and go when nobody needs them.

use std::sync::Arc;

use longhaul_session::id::Digest;

use super::{create, fork, is_invalid, next, session};
use crate::{Append, Appended, Deleted, Error, Store};

/// Redaction takes the content and leaves the record, and its neighbours alone.
pub async fn erased_content_is_gone_and_its_record_stays(store: Arc<dyn Store>) -> Result<(), Error> {
    let id = session(1);
    let before = create(&store, id, 4).await?;
    let mut expected = store.entries(id, 1..=4).await?;
    let append = Append { erase: vec![2, 4], ..next(&before) };
    assert_eq!(store.append(append.clone()).await?, Appended::Done);
    expected[1].content = None;
    expected[3].content = None;
    expected.extend(append.entries);
    assert_eq!(store.entries(id, 1..=5).await?, expected);
    for n in [0, 6, 9] {
        let append = Append { erase: vec![n], ..next(&append.row) };
        assert!(is_invalid(&store.append(append).await), "entry {n} cannot be erased");
    }
    let again = Append { erase: vec![2], ..next(&append.row) };
    assert_eq!(store.append(again).await?, Appended::Done, "what is gone may be erased again");
    Ok(())
}

/// What belongs to the parent is erased there, and then it is gone for the fork too.
pub async fn a_fork_cannot_erase_its_prefix(store: Arc<dyn Store>) -> Result<(), Error> {
    let parent = create(&store, session(1), 2).await?;
    let child = fork(&store, session(2), session(1), 2, 3).await?;
    let prefix = Append { erase: vec![3, 2], ..next(&child) };
    assert!(is_invalid(&store.append(prefix).await));
    assert!(store.entries(session(2), 3..=3).await?[0].content.is_some(), "nothing was erased");
    let own = Append { erase: vec![3], ..next(&child) };
    assert_eq!(store.append(own).await?, Appended::Done);
    assert_eq!(store.entries(session(2), 3..=3).await?[0].content, None);
    let parents = Append { erase: vec![2], ..next(&parent) };
    assert_eq!(store.append(parents).await?, Appended::Done);
    assert_eq!(store.entries(session(2), 2..=2).await?[0].content, None);
    Ok(())
}

/// Contents come back byte for byte around the sizes at which they are kept in another way.
pub async fn contents_of_all_sizes_come_back(store: Arc<dyn Store>) -> Result<(), Error> {
    let (small, large) = (64 * 1024, 1024 * 1024);
    let sizes = [0, 1, small - 1, small, small + 1, large - 1, large, large + 1, 3 * large];
    let mut contents = vec![None];
    for size in sizes {
        contents.push(Some(b"tool output, again and again\n".repeat(size / 29 + 1)[..size].to_vec()));
        contents.push(Some(noise(size)));
    }
    let mut row = create(&store, session(1), 1).await?;
    for content in &contents {
        let mut append = next(&row);
        append.entries[0].content.clone_from(content);
        row = append.row.clone();
        assert_eq!(store.append(append).await?, Appended::Done);
    }
    let read = store.entries(session(1), 2..=row.head).await?;
    assert_eq!(read.len(), contents.len());
    for (entry, content) in read.iter().zip(&contents) {
        let len = content.as_ref().map(Vec::len);
        // Not assert_eq: megabytes of bytes help nobody.
        assert!(entry.content == *content, "content {len:?} of entry {} came back", entry.n);
    }
    Ok(())
}

/// Bytes that no compression makes smaller.
fn noise(size: usize) -> Vec<u8> {
    let blocks = (0..size as u64).step_by(32).map(|at| Digest::of(&at.to_le_bytes()).0);
    blocks.flatten().take(size).collect()
}

/// An artifact is kept once, for all sessions that put it, until the last is deleted.
pub async fn artifacts_live_while_a_session_uses_them(store: Arc<dyn Store>) -> Result<(), Error> {
    create(&store, session(1), 1).await?;
    create(&store, session(2), 1).await?;
    let (shared, own) = (noise(2_000_000), b"mine".to_vec());
    let digest = store.put_artifact(session(1), shared.clone()).await?;
    assert_eq!(digest, Digest::of(&shared));
    assert_eq!(store.put_artifact(session(1), shared.clone()).await?, digest, "put again");
    assert_eq!(store.put_artifact(session(2), shared.clone()).await?, digest);
    let of_one = store.put_artifact(session(1), own.clone()).await?;
    assert!(store.artifact(digest).await? == Some(shared.clone()));
    assert_eq!(store.artifact(of_one).await?, Some(own));
    assert_eq!(store.delete(session(1)).await?, Deleted::Done);
    assert_eq!(store.artifact(of_one).await?, None);
    assert!(store.artifact(digest).await? == Some(shared), "the other session uses it");
    assert_eq!(store.delete(session(2)).await?, Deleted::Done);
    assert_eq!(store.artifact(digest).await?, None);
    let nobody = store.put_artifact(session(1), Vec::new()).await;
    assert_eq!(nobody, Err(Error::NoSuchSession(session(1))));
    Ok(())
}

/// An artifact that a session no longer keeps goes, unless somebody else uses it.
pub async fn a_forgotten_artifact_goes_with_its_last_user(store: Arc<dyn Store>) -> Result<(), Error> {
    let (one, two) = (create(&store, session(1), 1).await?, create(&store, session(2), 1).await?);
    let content = noise(1_500_000);
    let digest = store.put_artifact(session(1), content.clone()).await?;
    assert_eq!(store.put_artifact(session(2), content.clone()).await?, digest);
    let mut entry_too = next(&two);
    entry_too.entries[0].content = Some(content);
    assert_eq!(store.append(entry_too.clone()).await?, Appended::Done);
    for row in [&one, &entry_too.row] {
        assert!(store.artifact(digest).await?.is_some(), "somebody uses it");
        let unknown = Digest::of(b"never kept");
        let forget = Append { forget: vec![digest, unknown], ..next(row) };
        assert_eq!(store.append(forget).await?, Appended::Done);
    }
    assert!(store.artifact(digest).await?.is_some(), "the content of an entry uses it");
    let erase = Append { erase: vec![2], ..next(&next(&entry_too.row).row) };
    assert_eq!(store.append(erase).await?, Appended::Done);
    assert_eq!(store.artifact(digest).await?, None);
    Ok(())
}

/// Two entries with one large content: erasing one leaves the other's, erasing both leaves none.
pub async fn a_content_kept_apart_goes_with_its_last_user(store: Arc<dyn Store>) -> Result<(), Error> {
    let content = noise(1_500_000);
    let mut row = create(&store, session(1), 1).await?;
    for _ in 0..2 {
        let mut append = next(&row);
        append.entries[0].content = Some(content.clone());
        row = append.row.clone();
        assert_eq!(store.append(append).await?, Appended::Done);
    }
    let first = Append { erase: vec![2], ..next(&row) };
    assert_eq!(store.append(first.clone()).await?, Appended::Done);
    let read = store.entries(session(1), 2..=3).await?;
    assert!(read[0].content.is_none(), "it was erased");
    assert!(read[1].content.as_ref() == Some(&content), "its neighbour stays");
    let second = Append { erase: vec![3], ..next(&first.row) };
    assert_eq!(store.append(second).await?, Appended::Done);
    assert_eq!(store.artifact(Digest::of(&content)).await?, None);
    Ok(())
}
