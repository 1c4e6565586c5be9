-- Times are Unix milliseconds, flags 0 or 1, ids text, lists and maps JSON.
-- A column that ends in _key holds the name in ASCII lower case: names that differ in case only are one.

CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- Those that somebody has set; the others have their defaults.
CREATE TABLE parameters (
    name   TEXT NOT NULL PRIMARY KEY,
    value  TEXT NOT NULL,
    set_at INTEGER NOT NULL,
    set_by TEXT NOT NULL
) STRICT;

-- The one named default has a row only where somebody has changed it. Times are minutes.
CREATE TABLE policies (
    name                 TEXT NOT NULL PRIMARY KEY,
    failures_before_lock INTEGER NOT NULL CHECK (failures_before_lock >= 0),
    failure_window       INTEGER NOT NULL CHECK (failure_window > 0),
    lock_duration        INTEGER NOT NULL CHECK (lock_duration > 0),
    min_length           INTEGER NOT NULL,
    max_length           INTEGER NOT NULL,
    trivial_check        INTEGER NOT NULL CHECK (trivial_check IN (0, 1)),
    CHECK (min_length <= max_length)
) STRICT;

CREATE TABLE users (
    user_key          TEXT NOT NULL PRIMARY KEY,
    user_id           TEXT NOT NULL,
    self_service_id   TEXT,
    primary_extension TEXT,
    display_name      TEXT NOT NULL,
    enabled           INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    emcc_enabled      INTEGER NOT NULL CHECK (emcc_enabled IN (0, 1)),
    -- None: the one named default.
    policy            TEXT
) STRICT;
CREATE UNIQUE INDEX users_self_service_id ON users (self_service_id) WHERE self_service_id IS NOT NULL;
CREATE INDEX users_primary_extension ON users (primary_extension) WHERE primary_extension IS NOT NULL;
CREATE INDEX users_policy ON users (policy) WHERE policy IS NOT NULL;

CREATE TABLE credentials (
    user_key       TEXT NOT NULL PRIMARY KEY REFERENCES users (user_key) ON DELETE CASCADE,
    phc            TEXT NOT NULL,
    changed_at     INTEGER NOT NULL,
    failures       INTEGER NOT NULL CHECK (failures >= 0),
    window_started INTEGER,
    locked_until   INTEGER,
    must_change    INTEGER NOT NULL CHECK (must_change IN (0, 1))
) STRICT;

CREATE TABLE profiles (
    name        TEXT NOT NULL PRIMARY KEY,
    user_key    TEXT NOT NULL REFERENCES users (user_key) ON DELETE CASCADE,
    is_default  INTEGER NOT NULL CHECK (is_default IN (0, 1)),
    lines       TEXT NOT NULL,
    locale      TEXT,
    device_pool TEXT,
    services    TEXT NOT NULL
) STRICT;
CREATE INDEX profiles_user ON profiles (user_key);

CREATE TABLE devices (
    device_key    TEXT NOT NULL PRIMARY KEY,
    name          TEXT NOT NULL,
    model         TEXT NOT NULL,
    protocol      TEXT NOT NULL,
    security_mode INTEGER NOT NULL CHECK (security_mode IN (0, 1)),
    emcc          INTEGER NOT NULL CHECK (emcc IN (0, 1)),
    em_enabled    INTEGER NOT NULL CHECK (em_enabled IN (0, 1)),
    device_pool   TEXT,
    locale        TEXT,
    geolocation   TEXT NOT NULL,
    location      TEXT,
    services      TEXT NOT NULL
) STRICT;

CREATE TABLE device_pools (
    name          TEXT NOT NULL PRIMARY KEY,
    geolocation   TEXT NOT NULL,
    call_managers TEXT NOT NULL,
    tftp_servers  TEXT NOT NULL,
    roaming       INTEGER NOT NULL CHECK (roaming IN (0, 1)),
    location      TEXT,
    call_group    TEXT
) STRICT;

CREATE TABLE geolocations (
    name   TEXT NOT NULL PRIMARY KEY,
    fields TEXT NOT NULL
) STRICT;

CREATE TABLE call_groups (
    name    TEXT NOT NULL PRIMARY KEY,
    members TEXT NOT NULL
) STRICT;

CREATE TABLE phone_services (
    name TEXT NOT NULL PRIMARY KEY,
    url  TEXT NOT NULL,
    menu TEXT NOT NULL CHECK (menu IN ('services', 'directories', 'messages'))
) STRICT;

-- Programs that sign in by themselves; no password, no way in.
CREATE TABLE applications (
    application_key TEXT NOT NULL PRIMARY KEY,
    application_id  TEXT NOT NULL,
    proxy           INTEGER NOT NULL CHECK (proxy IN (0, 1)),
    phc             TEXT
) STRICT;

CREATE TABLE base_devices (
    base_device_key TEXT NOT NULL PRIMARY KEY,
    name            TEXT NOT NULL
) STRICT;

-- Imports that are not over: what they bring waits in import_rows, and nobody sees it before is_done.
CREATE TABLE imports (
    id         INTEGER NOT NULL PRIMARY KEY,
    node       TEXT NOT NULL,
    actor      TEXT NOT NULL,
    touched_at INTEGER NOT NULL,
    is_done    INTEGER NOT NULL CHECK (is_done IN (0, 1))
) STRICT;

CREATE TABLE import_rows (
    import INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    kind   TEXT NOT NULL,
    name   TEXT NOT NULL,
    audited TEXT NOT NULL,
    change TEXT NOT NULL,
    action TEXT NOT NULL CHECK (action IN ('put', 'remove', 'tell')),
    key    TEXT NOT NULL,
    phc    TEXT,
    c1     TEXT,
    c2     TEXT,
    c3     TEXT,
    c4     TEXT,
    c5     TEXT,
    c6     TEXT,
    c7     TEXT,
    c8     TEXT,
    c9     TEXT,
    c10    TEXT,
    c11    TEXT,
    PRIMARY KEY (import, seq)
) STRICT;

CREATE TABLE peers (
    cluster_id    TEXT NOT NULL PRIMARY KEY,
    enabled       INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    allow_emcc    INTEGER NOT NULL CHECK (allow_emcc IN (0, 1)),
    addresses     TEXT NOT NULL,
    node_names    TEXT NOT NULL,
    user_patterns TEXT NOT NULL,
    dn_patterns   TEXT NOT NULL,
    ignore_eku    INTEGER NOT NULL CHECK (ignore_eku IN (0, 1)),
    -- Of certificates that it announces.
    accept_announcements TEXT NOT NULL CHECK (accept_announcements IN ('auto', 'approve', 'off')),
    description   TEXT NOT NULL,
    -- While it is being removed: until when the mark counts.
    leaving_until INTEGER
) STRICT;

-- No reference to peers: entries of a cluster without a record are kept, and count from when it has one.
CREATE TABLE trust_entries (
    cluster_id  TEXT NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('anchor', 'pinned')),
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    der         BLOB NOT NULL,
    added_at    INTEGER NOT NULL,
    source      TEXT NOT NULL CHECK (source IN ('announced', 'imported', 'operator', 'paired')),
    -- The name that it has in key stores.
    alias       TEXT,
    PRIMARY KEY (cluster_id, kind, fingerprint)
) STRICT;
CREATE UNIQUE INDEX trust_entries_pinned_once ON trust_entries (fingerprint) WHERE kind = 'pinned';

-- Leaves that were taken back; they count as trust_entries do.
CREATE TABLE revoked_entries (
    cluster_id  TEXT NOT NULL,
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    revoked_at  INTEGER NOT NULL,
    PRIMARY KEY (cluster_id, fingerprint)
) STRICT;

-- Revocation lists of authorities; they count as trust_entries do.
CREATE TABLE crls (
    cluster_id  TEXT NOT NULL,
    issuer_key  BLOB NOT NULL CHECK (length(issuer_key) = 32),
    issuer_der  BLOB NOT NULL,
    number      TEXT NOT NULL,
    this_update INTEGER NOT NULL,
    next_update INTEGER NOT NULL,
    strict      INTEGER NOT NULL CHECK (strict IN (0, 1)),
    added_at    INTEGER NOT NULL,
    der         BLOB NOT NULL,
    PRIMARY KEY (cluster_id, issuer_key)
) STRICT;

-- Invitations of ours, and those that we were given. A key is here only while it can still be used: it checks proofs of
-- the secret, which is not here. Certificates and words are no secrets.
CREATE TABLE pairings (
    side         TEXT NOT NULL CHECK (side IN ('inviting', 'joining')),
    id           TEXT NOT NULL,
    state        TEXT NOT NULL,
    node         TEXT NOT NULL,
    actor        TEXT NOT NULL,
    -- What the other side is to know us by.
    name         TEXT NOT NULL,
    addresses    TEXT NOT NULL,
    their_addresses TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    proof_key    BLOB,
    failures     INTEGER NOT NULL CHECK (failures >= 0),
    bound_to     BLOB CHECK (length(bound_to) = 32),
    server_leaf  BLOB CHECK (length(server_leaf) = 32),
    remote       TEXT NOT NULL,
    words        TEXT NOT NULL,
    told         TEXT,
    confirmed_by TEXT,
    is_update    INTEGER NOT NULL CHECK (is_update IN (0, 1)),
    they_confirmed INTEGER NOT NULL CHECK (they_confirmed IN (0, 1)),
    trouble      TEXT NOT NULL,
    PRIMARY KEY (side, id)
) STRICT;

-- Certificates that a peer announced and that an operator has not agreed to yet.
CREATE TABLE waiting_entries (
    cluster_id  TEXT NOT NULL,
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    der         BLOB NOT NULL,
    since       INTEGER NOT NULL,
    PRIMARY KEY (cluster_id, fingerprint)
) STRICT;

-- The newest announcement of each identity (node and purpose) of each peer, also when nothing of it is left.
CREATE TABLE announced_identities (
    cluster_id TEXT NOT NULL,
    identity   TEXT NOT NULL,
    sequence   INTEGER NOT NULL CHECK (sequence >= 0),
    -- Of what was announced under that number.
    digest     BLOB NOT NULL CHECK (length(digest) = 32),
    told_at    INTEGER NOT NULL,
    PRIMARY KEY (cluster_id, identity)
) STRICT;

-- Which of the certificates that are accepted, or wait, an identity says are its own. Several may share one.
CREATE TABLE announced_certificates (
    cluster_id  TEXT NOT NULL,
    identity    TEXT NOT NULL,
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    PRIMARY KEY (cluster_id, identity, fingerprint)
) STRICT;

-- On whose word an announced certificate was taken: the parent stays here when its own entry is long gone.
CREATE TABLE trust_lineage (
    cluster_id  TEXT NOT NULL,
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    parent      BLOB NOT NULL CHECK (length(parent) = 32),
    PRIMARY KEY (cluster_id, fingerprint)
) STRICT;

-- What deadlines, the changed_at of sessions, locks and counts of wrong PINs, tickets, choices, the leaving_until of peers
-- and retention go by. One row, which one node advances for all of them by monotonic time: steps of the wall clock don't
-- reach it.
CREATE TABLE cluster_time (
    only INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
    at   INTEGER NOT NULL,
    -- What that node's wall clock said at that moment.
    wall INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    role        TEXT NOT NULL CHECK (role IN ('home', 'visiting')),
    counterpart TEXT NOT NULL,
    id          TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('pending', 'active', 'ending', 'ended')),
    device      TEXT NOT NULL,
    user_key    TEXT,
    user_id     TEXT,
    login_type  TEXT NOT NULL CHECK (login_type IN ('UID', 'SP', 'DN')),
    login_name  TEXT NOT NULL,
    profile     TEXT,
    base_device TEXT,
    services    TEXT,
    reference   TEXT NOT NULL,
    -- Wall time, for people.
    created_at  INTEGER NOT NULL,
    -- Cluster time: until when an answer may come (pending), or the session lasts (active).
    deadline    INTEGER,
    -- Cluster time of the newest change of its state, its beginning among them.
    changed_at  INTEGER NOT NULL,
    -- Wall time, for people.
    ended_at    INTEGER,
    end_reason  TEXT,
    initiator   TEXT,
    owed        INTEGER NOT NULL CHECK (owed IN (0, 1)),
    -- Why the counterpart will not take the end that it is owed, and since when (wall time); none: it is not parked.
    parked      TEXT,
    parked_at   INTEGER,
    node        TEXT,
    instance    TEXT,
    PRIMARY KEY (role, counterpart, id),
    CHECK (role = 'visiting' OR state IN ('active', 'ended')),
    CHECK (parked IS NULL OR owed = 1)
) STRICT;
-- One session per phone and role; home's rows are never pending.
CREATE UNIQUE INDEX sessions_one_per_device ON sessions (role, lower(device))
    WHERE state IN ('pending', 'active');
-- A base device is held by one session at most. Visiting's rows name base devices of other clusters.
CREATE UNIQUE INDEX sessions_one_per_base_device ON sessions (role, state, lower(base_device))
    WHERE role = 'home' AND state = 'active' AND base_device IS NOT NULL;
-- Role and state come first here and above, so that each is taken for what it is for.
CREATE INDEX sessions_active_of_user ON sessions (role, state, user_key, created_at, id)
    WHERE role = 'home' AND state = 'active';
-- Ids begin with the time they were made at, so this is the order of their ages too.
CREATE INDEX sessions_shared ON sessions (counterpart, role, id) WHERE state <> 'ended';
CREATE INDEX sessions_due ON sessions (role, deadline) WHERE state = 'active' AND deadline IS NOT NULL;
CREATE INDEX sessions_owed ON sessions (counterpart, changed_at, parked) WHERE owed = 1;
CREATE INDEX sessions_ended ON sessions (changed_at) WHERE state = 'ended' AND owed = 0;
CREATE INDEX sessions_pending ON sessions (deadline) WHERE state = 'pending';
CREATE INDEX sessions_created ON sessions (created_at, id, role);
CREATE INDEX sessions_reference ON sessions (reference);

-- How far the comparison of sessions with a peer has come; goes with the peer's record.
CREATE TABLE agreements (
    cluster_id TEXT NOT NULL PRIMARY KEY,
    -- Cluster time of the last comparison that came to its end, and of the last one that found no difference.
    passed_at  INTEGER,
    agreed_at  INTEGER,
    -- Cluster time since when an unlikely number of ends is held back, and how many those are.
    held_since INTEGER,
    held_ends  INTEGER NOT NULL
) STRICT;

CREATE TABLE answers (
    counterpart TEXT NOT NULL,
    id          TEXT NOT NULL,
    digest      BLOB NOT NULL CHECK (length(digest) = 32),
    code        INTEGER,
    cause       TEXT NOT NULL,
    body        BLOB NOT NULL,
    kept_at     INTEGER NOT NULL,
    PRIMARY KEY (counterpart, id)
) STRICT;
CREATE INDEX answers_by_age ON answers (kept_at);

-- Home's: what stands in for a PIN once. Of the ticket itself nothing is kept but its SHA-256.
CREATE TABLE tickets (
    caller     TEXT NOT NULL,
    device_key TEXT NOT NULL,
    user_key   TEXT NOT NULL REFERENCES users (user_key) ON DELETE CASCADE,
    purpose    TEXT NOT NULL CHECK (purpose IN ('change-pin', 'choose-profile')),
    -- The login that it was given out for. Each copy of that one's answer carries a ticket of its own.
    session_id TEXT NOT NULL,
    hash       BLOB NOT NULL CHECK (length(hash) = 32),
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (caller, device_key, user_key, purpose, hash)
) STRICT;
CREATE INDEX tickets_expire ON tickets (expires_at);
CREATE INDEX tickets_user ON tickets (user_key);

-- Visiting's: what a phone was asked to choose from, and whose home the chosen profile goes to.
CREATE TABLE choices (
    device_key TEXT NOT NULL PRIMARY KEY,
    hash       BLOB NOT NULL CHECK (length(hash) = 32),
    home       TEXT NOT NULL,
    login_type TEXT NOT NULL CHECK (login_type IN ('UID', 'SP', 'DN')),
    login_name TEXT NOT NULL,
    as_typed   INTEGER NOT NULL CHECK (as_typed IN (0, 1)),
    profiles   TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX choices_expire ON choices (expires_at);

CREATE TABLE hints (
    login_type TEXT NOT NULL,
    name_key   TEXT NOT NULL,
    cluster_id TEXT NOT NULL,
    PRIMARY KEY (login_type, name_key)
) STRICT;

CREATE TABLE audit (
    node      TEXT NOT NULL,
    seq       INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    actor     TEXT NOT NULL,
    action    TEXT NOT NULL,
    subject   TEXT NOT NULL,
    outcome   TEXT NOT NULL,
    reference TEXT,
    hash      BLOB NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (node, seq)
) STRICT;
CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_reference ON audit (reference) WHERE reference IS NOT NULL;

-- The seal is empty where a head was written without the cluster's key, or after one that had no good seal.
CREATE TABLE audit_heads (
    node TEXT NOT NULL PRIMARY KEY,
    seq  INTEGER NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    seal BLOB NOT NULL CHECK (length(seal) IN (0, 32))
) STRICT;

-- A node's row is its own: another run of the same name has another instance. The beat moves for as long as it lives.
CREATE TABLE nodes (
    name       TEXT NOT NULL PRIMARY KEY,
    instance   TEXT NOT NULL,
    addresses  TEXT NOT NULL,
    software   TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    beat       INTEGER NOT NULL,
    -- The revision of peers and trust that this run has in force.
    loaded_trust INTEGER
) STRICT;

-- How the links of each node stand, as that run of it says: for its siblings. A row counts only for the run in nodes.
CREATE TABLE node_links (
    node       TEXT NOT NULL REFERENCES nodes (name) ON DELETE CASCADE,
    cluster_id TEXT NOT NULL,
    instance   TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('connecting', 'down', 'incompatible', 'up')),
    since      INTEGER NOT NULL,
    reason     TEXT,
    PRIMARY KEY (node, cluster_id)
) STRICT;
CREATE INDEX node_links_up ON node_links (cluster_id) WHERE state = 'up';

-- Identities of nodes whose certificate is being exchanged. No reference to nodes: one that is down has its own still.
CREATE TABLE rotations (
    node            TEXT NOT NULL,
    purpose         TEXT NOT NULL CHECK (purpose IN ('federation', 'federation-client', 'phone')),
    phase           TEXT NOT NULL CHECK (phase IN ('requested', 'announced', 'active', 'retired', 'rolling-back')),
    old_certificate BLOB CHECK (length(old_certificate) = 32),
    new_certificate BLOB CHECK (length(new_certificate) = 32),
    sequence        INTEGER NOT NULL,
    automatic       INTEGER NOT NULL CHECK (automatic IN (0, 1)),
    settled         INTEGER NOT NULL CHECK (settled IN (0, 1)),
    -- What the node says of itself.
    shown           BLOB CHECK (length(shown) = 32),
    in_use          TEXT,
    old_ends        INTEGER,
    recipe          TEXT NOT NULL,
    problem         TEXT,
    since           INTEGER NOT NULL,
    PRIMARY KEY (node, purpose)
) STRICT;

-- What each peer has said to such a certificate.
CREATE TABLE rotation_peers (
    node       TEXT NOT NULL,
    purpose    TEXT NOT NULL,
    cluster_id TEXT NOT NULL,
    sequence   INTEGER NOT NULL,
    outcome    TEXT NOT NULL CHECK (outcome IN ('silent', 'loaded', 'waiting', 'refused', 'manual')),
    detail     TEXT NOT NULL,
    word       TEXT CHECK (word IN ('confirmed', 'overridden')),
    seen_out   INTEGER NOT NULL CHECK (seen_out IN (0, 1)),
    seen_in    INTEGER NOT NULL CHECK (seen_in IN (0, 1)),
    -- Whether it became a peer while the new one was shown.
    newcomer   INTEGER NOT NULL CHECK (newcomer IN (0, 1)),
    PRIMARY KEY (node, purpose, cluster_id),
    FOREIGN KEY (node, purpose) REFERENCES rotations (node, purpose) ON DELETE CASCADE
) STRICT;

-- Work that one node at a time does. Without a node it is free; the generation moves on with every take.
CREATE TABLE claims (
    task       TEXT NOT NULL PRIMARY KEY,
    generation INTEGER NOT NULL,
    node       TEXT,
    instance   TEXT,
    beat       INTEGER NOT NULL
) STRICT;
