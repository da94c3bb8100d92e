//! Pieces of statements that several of them share.

/// The columns of a row, in the order in which `read::row` reads them.
macro_rules! row_columns {
    () => {
        "id, head, head_hash, state, status, archived, name, claimable_at, owner, epoch, \
         place, parent, parent_at, labels, created, updated"
    };
}

/// Until when one lives who is renewed now, for so many milliseconds. From the beginning of the statement,
/// which is after its sender looked at the clock: nobody counts on more.
macro_rules! lives_until {
    ($ms:literal) => {
        concat!("now() + ", $ms, "::bigint * interval '1 millisecond'")
    };
}

/// The step of `sessions.updated_step` in which a time lies.
macro_rules! updated_step {
    ($updated:literal) => {
        concat!("(", $updated, " >> 22)")
    };
}

/// The step of `sessions.xact_step` in which a transaction lies, given as a bigint: as `txid_current()` is,
/// while `pg_current_xact_id()` becomes one only by way of a text.
macro_rules! xact_step {
    ($xact:literal) => {
        concat!("(", $xact, " >> 12)")
    };
}

/// Says of a row of `sessions` (by that name) that its owner lives: announced, both leases running, and not
/// one of those that have just gone.
macro_rules! lives {
    ($gone:literal) => {
        concat!(
            "(sessions.owner IS NOT NULL AND sessions.lease > now() AND sessions.owner <> ALL (",
            $gone,
            "::bytea[]) AND EXISTS (SELECT FROM workers AS w WHERE w.id = sessions.owner AND w.lease > now()))"
        )
    };
}

/// The channel of notifications: one for each schema.
macro_rules! channel {
    () => {
        "(SELECT 'longhaul_' || oid FROM pg_namespace WHERE nspname = current_schema())"
    };
}

/// Makes rows of arrays: the columns of entries, in the order of `columns::Entries::params`.
macro_rules! entries_from {
    ($session:literal, $n:literal, $kind:literal, $at:literal, $record:literal, $content:literal, $encoding:literal, $hash:literal, $request:literal) => {
        concat!(
            "unnest(",
            $session,
            "::bytea[], ",
            $n,
            "::bigint[], ",
            $kind,
            "::text[], ",
            $at,
            "::bigint[], ",
            $record,
            "::bytea[], ",
            $content,
            "::bytea[], ",
            $encoding,
            "::smallint[], ",
            $hash,
            "::bytea[], ",
            $request,
            "::text[])"
        )
    };
}

pub(super) use {channel, entries_from, lives, lives_until, row_columns, updated_step, xact_step};
