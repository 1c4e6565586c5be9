//! One row as it was read → a record, or what is wrong with it. Pure.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{
    MAX_BASE_DEVICES, MAX_BASE_DEVICES_IN_ALL, MAX_ROWS, NO_HASH, Placed, Problem, Problems, Rows,
    Whose,
};
use crate::{
    apply::{
        cell::{Cell, Raw, Refused, SecretText},
        columns::{self, Kind},
        csv_file::{Found, Sink},
    },
    clock::Timestamp,
    credentials,
    domain::{
        announcement::{Acceptance, NoAcceptance},
        bounds::{self, is_line},
        ids::{
            ApplicationId, BaseDeviceName, ClusterId, DeviceName, DevicePoolName, InvalidName,
            PolicyName, ProfileName, ServiceName, UserId,
        },
        login::{CallManager, Line, PhoneService, SecurityMode, ServiceMenu},
        parameters,
        policy::{Policy, Rules},
    },
    secret::{Pin, PinError},
    store::{
        applications::Application, call_groups::CallGroup, credentials::Phc, devices::Device,
        geolocations::Geolocation, parameters::Setting, peers::Peer, pools::DevicePool,
        profiles::Profile, users::User,
    },
};

/// Checks the rows of one file, each as it is read.
pub(super) struct Checker<'a> {
    file: Arc<str>,
    rows: &'a mut Rows,
    problems: &'a mut Problems,
    /// The columns of the row that were refused as it was read: nothing more is said of them.
    refused: Vec<&'static str>,
}

impl Sink for Checker<'_> {
    fn refuse(&mut self, (line, field, message): Found) {
        self.problems.push(Problem {
            file: Arc::clone(&self.file),
            line,
            field,
            message,
        });
    }

    fn row(&mut self, raw: Raw) -> bool {
        if self.rows.count >= MAX_ROWS {
            let rule = format!(
                "the files hold more than {MAX_ROWS} rows; what follows is not read: apply each kind by itself"
            );
            self.told(raw.line, raw.kind.name, rule);
            return false;
        }
        self.rows.count += 1;
        self.named(raw);
        true
    }
}

// What a column's shape gives; a column of another shape, which the tests of the table exclude, gives nothing.
fn text(raw: &mut Raw, column: &str) -> String {
    match raw.take(column) {
        Some(Cell::Text(text)) => text,
        _ => String::new(),
    }
}

/// Text, where an empty one is none.
fn text_or_none(raw: &mut Raw, column: &str) -> Option<String> {
    Some(text(raw, column)).filter(|text| !text.is_empty())
}

fn secret(raw: &mut Raw, column: &str) -> Option<SecretText> {
    match raw.take(column) {
        Some(Cell::Secret(text)) if !text.0.is_empty() => Some(text),
        _ => None,
    }
}

fn flag(raw: &mut Raw, column: &str) -> bool {
    matches!(raw.take(column), Some(Cell::Flag(true)))
}

fn list(raw: &mut Raw, column: &str) -> Vec<String> {
    match raw.take(column) {
        Some(Cell::List(list)) => list,
        _ => Vec::new(),
    }
}

fn map(raw: &mut Raw, column: &str) -> BTreeMap<String, String> {
    match raw.take(column) {
        Some(Cell::Map(map)) => map,
        _ => BTreeMap::new(),
    }
}

fn parts(raw: &mut Raw, column: &str) -> Vec<Vec<String>> {
    match raw.take(column) {
        Some(Cell::Parts(parts)) => parts,
        _ => Vec::new(),
    }
}

impl<'a> Checker<'a> {
    pub(super) fn new(file: Arc<str>, rows: &'a mut Rows, problems: &'a mut Problems) -> Self {
        Self {
            file,
            rows,
            problems,
            refused: Vec::new(),
        }
    }
}

impl Checker<'_> {
    /// The files hold a kind, even where no row of it follows.
    pub(super) fn holds(&mut self, kind: &Kind) {
        self.rows.kinds.insert(kind.name);
    }

    fn named(&mut self, mut raw: Raw) {
        self.holds(raw.kind);
        if let Some(Some(Cell::Text(name))) = raw.cells.first() {
            let named = self.rows.named.entry(raw.kind.name).or_default();
            named.insert(raw.kind.key(name));
        }
        match std::mem::take(&mut raw.refused) {
            Refused::Nothing => self.check(raw),
            // What was read is checked as well, so that all problems are told at once; but there is no such row.
            Refused::Columns(refused) => {
                let others = std::mem::take(self.rows);
                self.refused = refused;
                self.check(raw);
                self.refused.clear();
                *self.rows = others;
            }
            Refused::Whole => {}
        }
    }

    fn check(&mut self, raw: Raw) {
        match raw.kind {
            kind if *kind == columns::GEOLOCATION => self.place_row(raw),
            kind if *kind == columns::CALL_GROUP => self.call_group(raw),
            kind if *kind == columns::PHONE_SERVICE => self.phone_service(raw),
            kind if *kind == columns::DEVICE_POOL => self.pool(raw),
            kind if *kind == columns::POLICY => self.policy(raw),
            kind if *kind == columns::USER => self.user(raw),
            kind if *kind == columns::PROFILE => self.profile(raw),
            kind if *kind == columns::DEVICE => self.device(raw),
            kind if *kind == columns::BASE_DEVICE => self.base_device(raw),
            kind if *kind == columns::APPLICATION_USER => self.application(raw),
            kind if *kind == columns::PARAMETER => self.parameter(raw),
            _ => self.peer(raw),
        }
    }

    fn problem(&mut self, line: usize, field: &str, message: impl fmt::Display) {
        let column = field.split('.').nth(1);
        if !column.is_some_and(|column| self.refused.contains(&column)) {
            self.told(line, field, message);
        }
    }

    fn told(&mut self, line: usize, field: &str, message: impl fmt::Display) {
        self.problems.push(Problem {
            file: Arc::clone(&self.file),
            line,
            field: field.to_owned(),
            message: message.to_string(),
        });
    }

    fn name<T: std::str::FromStr<Err = InvalidName>>(
        &mut self,
        line: usize,
        field: &str,
        text: &str,
    ) -> Option<T> {
        text.parse()
            .map_err(|error| self.problem(line, field, error))
            .ok()
    }

    /// A name that may be left out.
    fn optional<T: std::str::FromStr<Err = InvalidName>>(
        &mut self,
        line: usize,
        field: &str,
        text: Option<String>,
    ) -> Option<T> {
        text.and_then(|text| self.name(line, field, &text))
    }

    fn place<T>(&self, line: usize, value: T) -> Placed<T> {
        Placed {
            value,
            file: Arc::clone(&self.file),
            line,
        }
    }

    fn user(&mut self, mut raw: Raw) {
        let line = raw.line;
        let self_service_id = text_or_none(&mut raw, "self-service-id");
        let self_service_id = self.optional(line, "user.self-service-id", self_service_id);
        let primary_extension = text_or_none(&mut raw, "extension");
        let primary_extension = self.optional(line, "user.extension", primary_extension);
        let display_name = text(&mut raw, "name");
        self.text(line, "user.name", &display_name, bounds::TEXT_BYTES);
        let policy = text_or_none(&mut raw, "policy");
        let policy = self.optional(line, "user.policy", policy);
        let user_id = self.name::<UserId>(line, "user.id", &text(&mut raw, "id"));
        let pin = secret(&mut raw, "pin");
        let hash = secret(&mut raw, "pin-hash");
        let secrets = self.secrets(line, ["user.pin", "user.pin-hash"], pin, hash);
        let Some(user_id) = user_id else { return };
        self.keep(&columns::USER, user_id.as_str(), secrets);
        let user = User {
            user_id,
            self_service_id,
            primary_extension,
            display_name,
            enabled: flag(&mut raw, "enabled"),
            emcc_enabled: flag(&mut raw, "emcc"),
            // Who names the one of all others names none.
            policy: policy.filter(|policy: &PolicyName| !policy.is_of_all_others()),
        };
        let placed = self.place(line, user);
        self.rows.users.push(placed);
    }

    /// A secret in clear, or its hash.
    fn secrets(
        &mut self,
        line: usize,
        [clear, hashed]: [&str; 2],
        secret: Option<SecretText>,
        hash: Option<SecretText>,
    ) -> (Option<Pin>, Option<Phc>) {
        self.either(line, [hashed, clear], secret.is_some() && hash.is_some());
        let secret = secret.map(|mut secret| Pin::new(std::mem::take(&mut *secret.0)));
        if let Some(Err(error)) = &secret {
            // It is one rule for both; its words are those of the PIN.
            let rule = match error {
                PinError::Blank => "it is blank".to_owned(),
                PinError::Malformed => format!(
                    "it is longer than {} bytes or holds a control character",
                    Pin::MAX_BYTES
                ),
            };
            self.problem(line, clear, rule);
        }
        let hash = hash.map(|mut hash| Phc::new(std::mem::take(&mut *hash.0)));
        if hash
            .as_ref()
            .is_some_and(|h| credentials::check_hash(h).is_err())
        {
            self.problem(line, hashed, NO_HASH);
        }
        (secret.and_then(Result::ok), hash)
    }

    fn keep(
        &mut self,
        kind: &'static Kind,
        name: &str,
        (secret, hash): (Option<Pin>, Option<Phc>),
    ) {
        let whose = || Whose::named(kind, name);
        if let Some(secret) = secret {
            self.rows.secrets.insert(whose(), secret);
        }
        if let Some(hash) = hash {
            self.rows.hashes.insert(whose(), hash);
        }
    }

    fn application(&mut self, mut raw: Raw) {
        let line = raw.line;
        let id = self.name::<ApplicationId>(line, "application-user.id", &text(&mut raw, "id"));
        let password = secret(&mut raw, "password");
        let hash = secret(&mut raw, "password-hash");
        let fields = [
            "application-user.password",
            "application-user.password-hash",
        ];
        let secrets = self.secrets(line, fields, password, hash);
        let Some(id) = id else { return };
        self.keep(&columns::APPLICATION_USER, id.as_str(), secrets);
        let application = Application {
            id,
            proxy: flag(&mut raw, "authentication-proxy"),
        };
        let placed = self.place(line, application);
        self.rows.applications.push(placed);
    }

    fn policy(&mut self, mut raw: Raw) {
        let line = raw.line;
        let mut given = |column: &str| match raw.take(column) {
            Some(Cell::Number(number)) => number.unwrap_or_default(),
            _ => 0,
        };
        let rules = Rules {
            failures_before_lock: given("failures-before-lock"),
            failure_window: given("failure-window"),
            lock_duration: given("lock-duration"),
            min_length: given("min-length"),
            max_length: given("max-length"),
            trivial_check: flag(&mut raw, "trivial-check"),
        };
        for broken in rules.broken() {
            let field = format!("policy.{}", broken.column);
            self.problem(line, &field, broken);
        }
        let name = self.name(line, "policy.name", &text(&mut raw, "name"));
        let Some(name) = name else { return };
        let placed = self.place(line, Policy { name, rules });
        self.rows.policies.push(placed);
    }

    fn parameter(&mut self, mut raw: Raw) {
        let line = raw.line;
        let (name, value) = (text(&mut raw, "name"), text(&mut raw, "value"));
        let parameter = match parameters::find(&name) {
            Ok(parameter) => parameter,
            Err(error) => return self.problem(line, "parameter.name", error),
        };
        match parameter.canonical(&value) {
            Ok(value) => {
                let setting = Setting {
                    name,
                    value,
                    // Whoever writes it puts in when and by whom.
                    set_at: Timestamp::from_millis(0),
                    set_by: String::new(),
                };
                let placed = self.place(line, setting);
                self.rows.parameters.push(placed);
            }
            Err(error) => self.problem(line, "parameter.value", error),
        }
    }

    fn place_row(&mut self, mut raw: Raw) {
        let line = raw.line;
        let fields = map(&mut raw, "fields");
        self.geolocation(line, "geolocation.fields", &fields);
        let name = self.name(line, "geolocation.name", &text(&mut raw, "name"));
        let Some(name) = name else { return };
        let placed = self.place(line, Geolocation { name, fields });
        self.rows.geolocations.push(placed);
    }

    fn call_group(&mut self, mut raw: Raw) {
        let line = raw.line;
        let members = parts(&mut raw, "members");
        let members = self.call_managers(line, "call-control-group.members", members);
        let name = self.name(line, "call-control-group.name", &text(&mut raw, "name"));
        let Some(name) = name else { return };
        let placed = self.place(line, CallGroup { name, members });
        self.rows.call_groups.push(placed);
    }

    fn phone_service(&mut self, mut raw: Raw) {
        let line = raw.line;
        let url = text(&mut raw, "url");
        let is_url = ["http://", "https://"].iter().any(|scheme| {
            url.strip_prefix(scheme)
                .is_some_and(|rest| !rest.is_empty())
        });
        if !is_url || url.contains(char::is_whitespace) || !is_line(&url, bounds::URL_BYTES) {
            let rule = format!(
                "it must begin with http:// or https:// and be at most {} bytes long, without blanks",
                bounds::URL_BYTES
            );
            self.problem(line, "phone-service.url", rule);
        }
        let menu = ServiceMenu::named(&text(&mut raw, "menu"));
        if menu.is_none() {
            let rule = "it must be services, directories or messages";
            self.problem(line, "phone-service.menu", rule);
        }
        let name = self.name(line, "phone-service.name", &text(&mut raw, "name"));
        let (Some(name), Some(menu)) = (name, menu) else {
            return;
        };
        let placed = self.place(line, PhoneService { name, url, menu });
        self.rows.phone_services.push(placed);
    }

    /// The phone services of a subscription.
    fn services(&mut self, line: usize, field: &str, names: &[String]) -> Vec<ServiceName> {
        if names.len() > bounds::SERVICES {
            let rule = format!("there must be at most {}", bounds::SERVICES);
            self.problem(line, field, rule);
        }
        let mut services = Vec::with_capacity(names.len());
        for name in names.iter().take(bounds::SERVICES) {
            let Some(service) = self.name::<ServiceName>(line, field, name) else {
                break;
            };
            if services.contains(&service) {
                self.problem(line, field, "a service stands in it twice");
                break;
            }
            services.push(service);
        }
        services
    }

    /// Two columns of which one says what the other only names.
    fn either(&mut self, line: usize, [one, other]: [&str; 2], has_both: bool) {
        if has_both {
            let word = |field: &str| field.rsplit('.').next().unwrap_or_default().to_owned();
            let rule = format!("give {} or {}, not both", word(other), word(one));
            self.problem(line, other, rule);
        }
    }

    fn profile(&mut self, mut raw: Raw) {
        let line = raw.line;
        let name = self.name::<ProfileName>(line, "profile.name", &text(&mut raw, "name"));
        let user_id = self.name::<UserId>(line, "profile.user", &text(&mut raw, "user"));
        let device_pool = text_or_none(&mut raw, "device-pool");
        let device_pool = self.optional(line, "profile.device-pool", device_pool);
        let lines = parts(&mut raw, "lines").into_iter().map(|parts| {
            let mut parts = parts.into_iter();
            let mut next = || parts.next().unwrap_or_default();
            Line {
                // Digits, by the column's shape.
                index: next().parse().unwrap_or_default(),
                number: next(),
                label: next(),
            }
        });
        let lines: Vec<_> = lines.collect();
        self.lines(line, &lines);
        let locale = text_or_none(&mut raw, "locale");
        if let Some(locale) = &locale {
            self.text(line, "profile.locale", locale, bounds::TEXT_BYTES);
        }
        let services = list(&mut raw, "services");
        let services = self.services(line, "profile.services", &services);
        let (Some(name), Some(user_id)) = (name, user_id) else {
            return;
        };
        let profile = Profile {
            name,
            user_id,
            is_default: flag(&mut raw, "default"),
            lines,
            locale,
            device_pool,
            services,
        };
        let placed = self.place(line, profile);
        self.rows.profiles.push(placed);
    }

    /// A text that the wire must be able to carry.
    fn text(&mut self, line: usize, field: &str, text: &str, max: usize) {
        if !is_line(text, max) {
            let rule = format!("it must be at most {max} bytes long, without control characters");
            self.problem(line, field, rule);
        }
    }

    fn lines(&mut self, line: usize, lines: &[Line]) {
        if lines.len() > bounds::LINES {
            let rule = format!("there must be at most {}", bounds::LINES);
            self.problem(line, "profile.lines", rule);
        }
        for one in lines.iter().take(bounds::LINES) {
            if one.index == 0 {
                self.problem(
                    line,
                    "profile.lines.index",
                    "it must be 1 for the first button, and up",
                );
            }
            if one.number.is_empty() {
                self.problem(line, "profile.lines.number", "it must not be empty");
            }
            self.text(
                line,
                "profile.lines.number",
                &one.number,
                bounds::TEXT_BYTES,
            );
            self.text(line, "profile.lines.label", &one.label, bounds::TEXT_BYTES);
        }
    }

    fn servers<'a>(
        &mut self,
        line: usize,
        field: &str,
        hosts: impl ExactSizeIterator<Item = &'a String>,
    ) {
        if hosts.len() > bounds::SERVERS {
            self.problem(
                line,
                field,
                format!("there must be at most {}", bounds::SERVERS),
            );
        }
        for host in hosts.take(bounds::SERVERS) {
            self.text(line, field, host, bounds::TEXT_BYTES);
            if host.is_empty() {
                self.problem(line, field, "a host must not be empty");
            }
        }
    }

    fn device(&mut self, mut raw: Raw) {
        let line = raw.line;
        let protocol = text(&mut raw, "protocol");
        if !matches!(protocol.as_str(), "SIP" | "SCCP") {
            self.problem(line, "device.protocol", "it must be SIP or SCCP");
        }
        let security_mode = match text(&mut raw, "security-mode").as_str() {
            "secure" => SecurityMode::Secure,
            "non-secure" => SecurityMode::NonSecure,
            _ => {
                let rule = "it must be non-secure or secure";
                self.problem(line, "device.security-mode", rule);
                SecurityMode::NonSecure
            }
        };
        let model = text(&mut raw, "model");
        self.text(line, "device.model", &model, bounds::MODEL_BYTES);
        let geolocation = map(&mut raw, "geolocation");
        self.geolocation(line, "device.geolocation", &geolocation);
        let device_pool = text_or_none(&mut raw, "device-pool");
        let device_pool = self.optional(line, "device.device-pool", device_pool);
        let locale = text_or_none(&mut raw, "locale");
        if let Some(locale) = &locale {
            self.text(line, "device.locale", locale, bounds::TEXT_BYTES);
        }
        let location = text_or_none(&mut raw, "location");
        let location = self.optional(line, "device.location", location);
        let has_both = location.is_some() && !geolocation.is_empty();
        self.either(line, ["device.location", "device.geolocation"], has_both);
        let services = list(&mut raw, "services");
        let services = self.services(line, "device.services", &services);
        let name = self.name::<DeviceName>(line, "device.name", &text(&mut raw, "name"));
        let Some(name) = name else { return };
        let device = Device {
            name,
            model,
            protocol,
            security_mode,
            emcc: flag(&mut raw, "emcc"),
            em_enabled: flag(&mut raw, "extension-mobility"),
            device_pool,
            locale,
            geolocation,
            location,
            services,
        };
        let placed = self.place(line, device);
        self.rows.devices.push(placed);
    }

    fn geolocation(&mut self, line: usize, field: &str, fields: &BTreeMap<String, String>) {
        let (most, bytes) = (bounds::GEOLOCATION_FIELDS, bounds::GEOLOCATION_BYTES);
        let fits = |(name, value): (&String, &String)| {
            !name.is_empty() && is_line(name, bytes) && is_line(value, bytes)
        };
        if fields.len() > most || !fields.iter().all(fits) {
            let rule = format!(
                "at most {most} fields with a name, names and values at most {bytes} bytes long, without control \
                 characters"
            );
            self.problem(line, field, rule);
        }
    }

    fn pool(&mut self, mut raw: Raw) {
        let line = raw.line;
        let call_managers = parts(&mut raw, "call-managers");
        let call_managers = self.call_managers(line, "device-pool.call-managers", call_managers);
        let call_group = text_or_none(&mut raw, "call-control-group");
        let call_group = self.optional(line, "device-pool.call-control-group", call_group);
        let fields = [
            "device-pool.call-control-group",
            "device-pool.call-managers",
        ];
        self.either(
            line,
            fields,
            call_group.is_some() && !call_managers.is_empty(),
        );
        let tftp_servers = list(&mut raw, "tftp-servers");
        self.servers(line, "device-pool.tftp-servers", tftp_servers.iter());
        let geolocation = map(&mut raw, "geolocation");
        self.geolocation(line, "device-pool.geolocation", &geolocation);
        let location = text_or_none(&mut raw, "location");
        let location = self.optional(line, "device-pool.location", location);
        let fields = ["device-pool.location", "device-pool.geolocation"];
        self.either(line, fields, location.is_some() && !geolocation.is_empty());
        let name = self.name::<DevicePoolName>(line, "device-pool.name", &text(&mut raw, "name"));
        let Some(name) = name else { return };
        let pool = DevicePool {
            name,
            geolocation,
            location,
            call_managers,
            call_group,
            tftp_servers,
            roaming: flag(&mut raw, "roaming"),
        };
        let placed = self.place(line, pool);
        self.rows.pools.push(placed);
    }

    fn call_managers(
        &mut self,
        line: usize,
        field: &str,
        entries: Vec<Vec<String>>,
    ) -> Vec<CallManager> {
        let mut found = Vec::with_capacity(entries.len());
        let mut is_high = false;
        for entry in entries {
            let mut entry = entry.into_iter();
            let host = entry.next().unwrap_or_default();
            let priority: Option<u8> = entry.next().and_then(|text| text.parse().ok());
            let priority = priority.filter(|priority| *priority <= bounds::PRIORITY);
            is_high |= priority.is_none();
            found.push(CallManager {
                host,
                priority: priority.unwrap_or_default(),
            });
        }
        if is_high {
            let rule = format!("a priority is 0 to {}", bounds::PRIORITY);
            self.problem(line, field, rule);
        }
        let hosts = found.iter().map(|manager| &manager.host);
        self.servers(line, field, hosts);
        found
    }

    fn base_device(&mut self, mut raw: Raw) {
        let line = raw.line;
        let count = match raw.take("count") {
            Some(Cell::Number(count)) => count,
            _ => None,
        };
        // Before the names are made: a file of some megabytes could count to billions.
        let wanted = usize::try_from(count.unwrap_or(1)).unwrap_or(usize::MAX);
        if self.rows.base_devices.len().saturating_add(wanted) > MAX_BASE_DEVICES_IN_ALL
            && count.is_none_or(|count| count <= MAX_BASE_DEVICES)
        {
            let rule = format!("a cluster has at most {MAX_BASE_DEVICES_IN_ALL} base devices");
            self.problem(line, "base-device", rule);
            return;
        }
        let name = text(&mut raw, "name");
        let names: Vec<String> = match count {
            None => vec![name],
            Some(count @ 1..=MAX_BASE_DEVICES) => {
                (1..=count).map(|n| format!("{name}{n}")).collect()
            }
            Some(_) => {
                self.problem(
                    line,
                    "base-device.count",
                    format!("it must be 1 to {MAX_BASE_DEVICES}"),
                );
                self.name::<BaseDeviceName>(line, "base-device.name", &name);
                return;
            }
        };
        for name in names {
            let Some(name) = self.name::<BaseDeviceName>(line, "base-device.name", &name) else {
                return;
            };
            let placed = self.place(line, name);
            self.rows.base_devices.push(placed);
        }
    }

    fn peer(&mut self, mut raw: Raw) {
        let line = raw.line;
        let id = self.name::<ClusterId>(line, "peer.id", &text(&mut raw, "id"));
        let is_named = id.is_some();
        // Under some name the other columns are checked as well.
        let Some(cluster_id) = id.or_else(|| "unnamed".parse().ok()) else {
            return;
        };
        let word = text(&mut raw, "accept-announcements");
        let accept_announcements = word.parse().unwrap_or_else(|rule: NoAcceptance| {
            self.problem(line, "peer.accept-announcements", rule.to_string());
            Acceptance::default()
        });
        let peer = Peer {
            cluster_id,
            enabled: flag(&mut raw, "enabled"),
            allow_emcc: flag(&mut raw, "allow-emcc"),
            addresses: list(&mut raw, "addresses"),
            node_names: list(&mut raw, "node-names"),
            user_patterns: list(&mut raw, "user-patterns"),
            dn_patterns: list(&mut raw, "dn-patterns"),
            ignore_eku: flag(&mut raw, "ignore-eku"),
            accept_announcements,
            description: text(&mut raw, "description"),
        };
        for broken in peer.broken_fields() {
            let field = format!("peer.{}", broken.field);
            self.problem(line, &field, format!("it must be {}", broken.rule));
        }
        if is_named {
            let placed = self.place(line, peer);
            self.rows.peers.push(placed);
        }
    }
}
