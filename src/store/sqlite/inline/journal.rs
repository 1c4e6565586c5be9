//! What became of the sessions on a disk, change by change: also what nobody who looks now and then would see, since it
//! had changed again by then.
//!
//! It is kept beside the database, in what belongs to the connection: a change that is undone is undone here too, and a
//! database that becomes an older one takes nothing of it back.

use std::time::Duration;

use rusqlite::Connection;

use crate::{
    domain::{
        ids::{BaseDeviceName, ClusterId, DeviceName, Ref, SessionId, UserId},
        session::{EndReason, Initiator, Role, State},
    },
    store::{Transaction, value::Row},
};

/// A durable change of a session's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// When, since the journal was begun.
    pub(crate) at_ms: u64,
    pub(crate) role: Role,
    pub(crate) counterpart: ClusterId,
    pub(crate) id: SessionId,
    pub(crate) reference: Ref,
    pub(crate) device: DeviceName,
    pub(crate) user: Option<UserId>,
    pub(crate) base: Option<BaseDeviceName>,
    /// What it was; none for a row that is new.
    pub(crate) was: Option<State>,
    /// What it is; none for a row that is gone.
    pub(crate) now: Option<State>,
    pub(crate) reason: Option<EndReason>,
    pub(crate) initiator: Option<Initiator>,
}

const BEGIN: &str = "
PRAGMA temp_store = MEMORY;
CREATE TEMP TABLE moment (at INTEGER NOT NULL);
INSERT INTO moment VALUES (0);
CREATE TEMP TABLE changes_of_sessions (
    n           INTEGER PRIMARY KEY,
    at          INTEGER NOT NULL,
    role        TEXT NOT NULL,
    counterpart TEXT NOT NULL,
    id          TEXT NOT NULL,
    reference   TEXT NOT NULL,
    device      TEXT NOT NULL,
    user_id     TEXT,
    base_device TEXT,
    was         TEXT,
    is_now      TEXT,
    end_reason  TEXT,
    initiator   TEXT
);
CREATE TEMP TRIGGER a_session_is_new AFTER INSERT ON main.sessions BEGIN
    INSERT INTO changes_of_sessions
        (at, role, counterpart, id, reference, device, user_id, base_device, was, is_now, end_reason, initiator)
    SELECT at, NEW.role, NEW.counterpart, NEW.id, NEW.reference, NEW.device, NEW.user_id, NEW.base_device,
        NULL, NEW.state, NEW.end_reason, NEW.initiator
    FROM moment;
END;
CREATE TEMP TRIGGER a_session_changed AFTER UPDATE ON main.sessions
WHEN OLD.state <> NEW.state OR OLD.device <> NEW.device OR OLD.user_id IS NOT NEW.user_id
    OR OLD.base_device IS NOT NEW.base_device
BEGIN
    INSERT INTO changes_of_sessions
        (at, role, counterpart, id, reference, device, user_id, base_device, was, is_now, end_reason, initiator)
    SELECT at, NEW.role, NEW.counterpart, NEW.id, NEW.reference, NEW.device, NEW.user_id, NEW.base_device,
        OLD.state, NEW.state, NEW.end_reason, NEW.initiator
    FROM moment;
END;
CREATE TEMP TRIGGER a_session_is_gone AFTER DELETE ON main.sessions BEGIN
    INSERT INTO changes_of_sessions
        (at, role, counterpart, id, reference, device, user_id, base_device, was, is_now, end_reason, initiator)
    SELECT at, OLD.role, OLD.counterpart, OLD.id, OLD.reference, OLD.device, OLD.user_id, OLD.base_device,
        OLD.state, NULL, OLD.end_reason, OLD.initiator
    FROM moment;
END;
";

/// Begins one.
pub(super) fn begin(connection: &Connection) {
    connection.execute_batch(BEGIN).unwrap();
}

/// What is changed from here on is changed at that moment.
pub(super) fn moment(connection: &Connection, since_begin: Duration) {
    let at = i64::try_from(since_begin.as_millis()).unwrap();
    // A disk that refuses all commits refuses this one too, and then nothing changes either.
    drop(
        connection
            .prepare_cached("UPDATE temp.moment SET at = ?1")
            .and_then(|mut statement| statement.execute([at])),
    );
}

/// All that is in it, in the order of the changes.
pub(super) fn read(tx: &mut dyn Transaction) -> Vec<Change> {
    let all = tx.query(
        "SELECT at, role, counterpart, id, reference, device, user_id, base_device, was, is_now, end_reason,
             initiator
         FROM temp.changes_of_sessions ORDER BY n",
        &[],
    );
    all.unwrap().into_iter().map(change).collect()
}

fn change(mut row: Row) -> Change {
    Change {
        at_ms: u64::try_from(row.int().unwrap()).unwrap(),
        role: row.parse().unwrap(),
        counterpart: row.parse().unwrap(),
        id: row.parse().unwrap(),
        reference: row.parse().unwrap(),
        device: row.parse().unwrap(),
        user: row.opt_parse().unwrap(),
        base: row.opt_parse().unwrap(),
        was: row.opt_parse().unwrap(),
        now: row.opt_parse().unwrap(),
        reason: row.opt_parse().unwrap(),
        initiator: row.opt_parse().unwrap(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::sqlite::inline::Disk;

    const INSERT: &str = "INSERT INTO sessions (role, counterpart, id, state, device, login_type, login_name, reference,
         created_at, changed_at, owed)
         VALUES ('visiting', 'tokyo', '01010101-0101-0101-0101-010101010101', 'pending', 'SEP000000000001', 'UID', 'ann',
         $1, 0, 0, 0)";

    fn set(disk: &Disk, state: &str) {
        let sql = format!("UPDATE sessions SET state = '{state}'");
        disk.with(|tx| tx.execute(&sql, &[])).unwrap();
    }

    fn seen(disk: &Disk) -> Vec<(u64, Option<State>, Option<State>)> {
        let all = disk.journal();
        all.iter()
            .map(|one| (one.at_ms, one.was, one.now))
            .collect()
    }

    #[test]
    fn each_change_is_there_in_its_order_and_stays_when_the_database_becomes_an_older_one() {
        let disk = Disk::new();
        assert_eq!(disk.journal(), []);
        disk.begin_journal();
        let reference = Ref::from_bits(1).compact();
        disk.with(|tx| tx.execute(INSERT, &[reference.into()]))
            .unwrap();
        let before = disk.snapshot();
        moment(&disk.connection(), Duration::from_millis(70));
        set(&disk, "ended");
        set(&disk, "ended");
        set(&disk, "pending");
        disk.restore(&before);
        set(&disk, "active");
        disk.with(|tx| tx.execute("DELETE FROM sessions", &[]))
            .unwrap();
        let [pending, active, ended] = [State::Pending, State::Active, State::Ended].map(Some);
        let all = [
            (0, None, pending),
            (70, pending, ended),
            (70, ended, pending),
            (70, pending, active),
            (70, active, None),
        ];
        assert_eq!(seen(&disk), all);
    }

    #[test]
    fn whose_it_is_on_which_phone_and_what_it_holds_is_told_with_it() {
        let disk = Disk::new();
        disk.begin_journal();
        let reference = Ref::from_bits(1).compact();
        disk.with(|tx| tx.execute(INSERT, &[reference.into()]))
            .unwrap();
        let named = "UPDATE sessions SET state = 'active', user_id = 'ann', base_device = 'EMCC10'";
        disk.with(|tx| tx.execute(named, &[])).unwrap();
        let another = "UPDATE sessions SET base_device = 'EMCC11'";
        disk.with(|tx| tx.execute(another, &[])).unwrap();
        disk.with(|tx| tx.execute("UPDATE sessions SET owed = 1", &[]))
            .unwrap();
        let told: Vec<_> = disk.journal().into_iter().map(whose).collect();
        let whose = |user: Option<&str>, base: Option<&str>| {
            let [user, base] = [user, base].map(|name| name.map(str::to_owned));
            ("SEP000000000001".to_owned(), user, base)
        };
        let all = [
            whose(None, None),
            whose(Some("ann"), Some("EMCC10")),
            whose(Some("ann"), Some("EMCC11")),
        ];
        assert_eq!(told, all);
    }

    fn whose(change: Change) -> (String, Option<String>, Option<String>) {
        let base = change.base.map(|base| base.to_string());
        let user = change.user.map(|user| user.to_string());
        (change.device.to_string(), user, base)
    }

    #[test]
    fn what_is_undone_never_was() {
        let disk = Disk::new();
        disk.begin_journal();
        let connection = disk.connection();
        connection.execute_batch("BEGIN").unwrap();
        connection
            .execute(&INSERT.replace("$1", "'x'"), [])
            .unwrap();
        connection.execute_batch("ROLLBACK").unwrap();
        drop(connection);
        assert_eq!(seen(&disk), []);
    }
}
