//! `user`, `device` and `base`: what the cluster knows of people and phones.

use crate::{
    cli::{
        args::{Base, Device, Global, User},
        client::{Client, answer, connect},
        failure::Outcome,
        output::{Report, record, table, time, yes},
        people, session,
    },
    wire::admin as pb,
};

/// `user`.
///
/// # Errors
/// What the daemon refuses.
pub async fn user(global: &Global, verb: User) -> Outcome {
    match verb {
        User::Add(args) => people::user_add(global, args).await,
        User::Set(args) => people::user_set(global, args).await,
        User::Remove(args) => people::user_remove(global, args).await,
        User::List => {
            let mut client = connect(global).await?;
            let users = all_users(&mut client).await?;
            Ok(Report::new(users_text(&users), &users))
        }
        User::Show { user_id } => {
            let mut client = connect(global).await?;
            let what = format!("cannot show the user {user_id}");
            let user_id = user_id.to_string();
            let found = answer(what, client.get_user(pb::GetUserRequest { user_id }).await)?;
            Ok(Report::new(user_text(&found), &found))
        }
    }
}

/// `device`.
///
/// # Errors
/// What the daemon refuses.
pub async fn device(global: &Global, verb: Device) -> Outcome {
    match verb {
        Device::Add(args) => people::device_add(global, args).await,
        Device::Set(args) => people::device_set(global, args).await,
        Device::Remove(args) => people::device_remove(global, args).await,
        Device::List => {
            let mut client = connect(global).await?;
            let devices = all_devices(&mut client).await?;
            Ok(Report::new(devices_text(&devices), &devices))
        }
        Device::Show { name } => {
            let mut client = connect(global).await?;
            let what = format!("cannot show the device {name}");
            let name = name.to_string();
            let found = answer(what, client.get_device(pb::GetDeviceRequest { name }).await)?;
            Ok(Report::new(device_text(&found), &found))
        }
    }
}

/// `base`.
///
/// # Errors
/// What the daemon refuses.
pub async fn base(global: &Global, verb: Base) -> Outcome {
    match verb {
        Base::Add(args) => people::base_add(global, args).await,
        Base::Remove(args) => people::base_remove(global, args).await,
        Base::List => {
            let mut client = connect(global).await?;
            let asked = client.list_base_devices(pb::ListBaseDevicesRequest {});
            let all = answer("cannot list the base devices", asked.await)?.base_devices;
            Ok(Report::new(base_devices_text(&all), &all))
        }
        Base::Show { name } => {
            let mut client = connect(global).await?;
            let what = format!("cannot show the base device {name}");
            let asked = client.get_base_device(pb::GetBaseDeviceRequest { name });
            let found = answer(what, asked.await)?;
            Ok(Report::new(base_device_text(&found), &found))
        }
    }
}

async fn all_users(client: &mut Client) -> Outcome<Vec<pb::User>> {
    let mut users = Vec::new();
    let mut page_token = String::new();
    loop {
        let query = pb::ListUsersRequest {
            page_size: 0,
            page_token,
        };
        let page = answer("cannot list the users", client.list_users(query).await)?;
        users.extend(page.users);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(users);
        }
    }
}

async fn all_devices(client: &mut Client) -> Outcome<Vec<pb::Device>> {
    let mut devices = Vec::new();
    let mut page_token = String::new();
    loop {
        let query = pb::ListDevicesRequest {
            page_size: 0,
            page_token,
        };
        let page = answer("cannot list the devices", client.list_devices(query).await)?;
        devices.extend(page.devices);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(devices);
        }
    }
}

fn users_text(users: &[pb::User]) -> String {
    if users.is_empty() {
        return "no users\n\nnext: emccd user add USER --ask-pin, or for many emccd apply FILE"
            .to_owned();
    }
    let rows = users.iter().map(|user| {
        [
            user.user_id.clone(),
            user.display_name.clone(),
            user.self_service_id.clone().unwrap_or_default(),
            user.primary_extension.clone().unwrap_or_default(),
            yes(user.enabled),
            yes(user.emcc_enabled),
        ]
    });
    table(
        [
            "USER",
            "NAME",
            "SELF-SERVICE ID",
            "EXTENSION",
            "ENABLED",
            "EMCC",
        ],
        rows.collect(),
    )
}

fn user_text(found: &pb::GetUserResponse) -> String {
    let user = found.user.clone().unwrap_or_default();
    let mut text = record(&[
        ("user", user.user_id),
        ("name", user.display_name),
        ("self-service ID", user.self_service_id.unwrap_or_default()),
        (
            "primary extension",
            user.primary_extension.unwrap_or_default(),
        ),
        ("enabled", yes(user.enabled)),
        ("may log in at other clusters", yes(user.emcc_enabled)),
        (
            "policy",
            user.policy.unwrap_or_else(|| "default".to_owned()),
        ),
        ("PIN", pin_text(&found.pin.clone().unwrap_or_default())),
    ]);
    if !found.profiles.is_empty() {
        let rows = found.profiles.iter().map(|profile| {
            let lines: Vec<_> = profile.lines.iter().map(|line| &*line.number).collect();
            [
                profile.name.clone(),
                yes(profile.is_default),
                lines.join(" "),
                profile.device_pool.clone().unwrap_or_default(),
                profile.locale.clone().unwrap_or_default(),
            ]
        });
        text += "\n\n";
        text += &table(
            ["PROFILE", "DEFAULT", "LINES", "DEVICE POOL", "LOCALE"],
            rows.collect(),
        );
    }
    text + &sessions_below(&found.sessions)
}

fn pin_text(pin: &pb::PinState) -> String {
    if !pin.is_set {
        return "not set: no login is possible".to_owned();
    }
    let mut text = "set".to_owned();
    if pin.must_change {
        text += ", must be changed";
    }
    if pin.failures > 0 {
        text += &format!(", {} wrong of late", pin.failures);
    }
    if let Some(until) = &pin.locked_until {
        text += &format!(", locked until {}", time(until));
    }
    text
}

fn devices_text(devices: &[pb::Device]) -> String {
    if devices.is_empty() {
        return "no devices\n\nnext: emccd device add DEVICE, or for many emccd apply FILE"
            .to_owned();
    }
    let rows = devices.iter().map(|device| {
        [
            device.name.clone(),
            device.model.clone(),
            device.protocol.clone(),
            device.security_mode.clone(),
            yes(device.em_enabled),
            yes(device.emcc),
            device.device_pool.clone().unwrap_or_default(),
        ]
    });
    table(
        [
            "DEVICE",
            "MODEL",
            "PROTOCOL",
            "SECURITY",
            "LOGIN",
            "EMCC",
            "DEVICE POOL",
        ],
        rows.collect(),
    )
}

fn device_text(found: &pb::GetDeviceResponse) -> String {
    let device = found.device.clone().unwrap_or_default();
    let place: Vec<_> = device
        .geolocation
        .iter()
        .map(|(field, value)| format!("{field}={value}"))
        .collect();
    let text = record(&[
        ("device", device.name),
        ("model", device.model),
        ("protocol", device.protocol),
        ("security", device.security_mode),
        ("login enabled", yes(device.em_enabled)),
        ("users of other clusters", yes(device.emcc)),
        ("device pool", device.device_pool.unwrap_or_default()),
        ("locale", device.locale.unwrap_or_default()),
        ("geolocation", place.join(" ")),
        ("location", device.location.unwrap_or_default()),
        ("services", device.services.join(", ")),
    ]);
    text + &sessions_below(found.session.as_slice())
}

fn base_devices_text(all: &[pb::BaseDevice]) -> String {
    if all.is_empty() {
        return "no base devices: no user of this cluster can log in elsewhere\n\nnext: emccd base add EMCC --count 20".to_owned();
    }
    let rows = all.iter().map(|base| {
        [
            base.name.clone(),
            base.session_id.clone().unwrap_or_else(|| "free".to_owned()),
        ]
    });
    table(["BASE DEVICE", "SESSION"], rows.collect())
}

fn base_device_text(found: &pb::GetBaseDeviceResponse) -> String {
    let base = found.base_device.clone().unwrap_or_default();
    let text = record(&[
        ("base device", base.name),
        (
            "session",
            base.session_id.unwrap_or_else(|| "free".to_owned()),
        ),
    ]);
    text + &sessions_below(found.session.as_slice())
}

fn sessions_below(sessions: &[pb::Session]) -> String {
    if sessions.is_empty() {
        String::new()
    } else {
        format!("\n\n{}", session::list_text(sessions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_shown_with_what_the_help_desk_asks_for() {
        let found = pb::GetUserResponse {
            user: Some(pb::User {
                user_id: "anna".to_owned(),
                primary_extension: Some("2001".to_owned()),
                display_name: "Anna Ost".to_owned(),
                enabled: true,
                ..pb::User::default()
            }),
            profiles: vec![pb::Profile {
                name: "anna-mobile".to_owned(),
                is_default: true,
                lines: vec![pb::ProfileLine {
                    index: 1,
                    number: "2001".to_owned(),
                    label: "Anna".to_owned(),
                }],
                ..pb::Profile::default()
            }],
            pin: Some(pb::PinState {
                is_set: true,
                failures: 3,
                locked_until: Some("2026-11-22T09:30:00.000Z".to_owned()),
                must_change: true,
            }),
            sessions: Vec::new(),
        };
        let expected = "\
user                          anna
name                          Anna Ost
self-service ID               -
primary extension             2001
enabled                       yes
may log in at other clusters  no
policy                        default
PIN                           set, must be changed, 3 wrong of late, locked until 2026-11-22 09:30:00Z

PROFILE      DEFAULT  LINES  DEVICE POOL  LOCALE
anna-mobile  yes      2001   -            -";
        assert_eq!(user_text(&found), expected);
    }

    #[test]
    fn lists_are_tables() {
        let users = [pb::User {
            user_id: "anna".to_owned(),
            display_name: "Anna".to_owned(),
            enabled: true,
            emcc_enabled: true,
            policy: None,
            ..pb::User::default()
        }];
        assert_eq!(
            users_text(&users),
            "USER  NAME  SELF-SERVICE ID  EXTENSION  ENABLED  EMCC\n\
             anna  Anna  -                -          yes      yes"
        );
        let devices = [pb::Device {
            name: "SEP1".to_owned(),
            model: "8845".to_owned(),
            protocol: "SIP".to_owned(),
            security_mode: "secure".to_owned(),
            em_enabled: true,
            ..pb::Device::default()
        }];
        assert_eq!(
            devices_text(&devices),
            "DEVICE  MODEL  PROTOCOL  SECURITY  LOGIN  EMCC  DEVICE POOL\n\
             SEP1    8845   SIP       secure    yes    no    -"
        );
        let base = [pb::BaseDevice {
            name: "BASE1".to_owned(),
            session_id: None,
        }];
        assert_eq!(
            base_devices_text(&base),
            "BASE DEVICE  SESSION\nBASE1        free"
        );
    }
}
