//! Home services: what a login brings back.

use crate::{
    domain::{
        bounds::{LINES, PRIORITY, REASON_BYTES, SERVERS, SERVICES, TEXT_BYTES, URL_BYTES},
        login::{CallManager, HomeServices, Line, PhoneService, ServiceMenu},
    },
    wire::{
        malformed::{self, Malformed},
        pb, time,
    },
};

impl From<&HomeServices> for pb::HomeServices {
    fn from(services: &HomeServices) -> Self {
        fn text<T: ToString>(value: Option<&T>) -> String {
            value.map(ToString::to_string).unwrap_or_default()
        }
        Self {
            user_id: services.user_id.to_string(),
            profile: services.profile.to_string(),
            base_device: text(services.base_device.as_ref()),
            call_managers: services
                .call_managers
                .iter()
                .map(|server| pb::CallManager {
                    host: server.host.clone(),
                    priority: server.priority.into(),
                })
                .collect(),
            tftp_servers: services.tftp_servers.clone(),
            device_pool: text(services.device_pool.as_ref()),
            lines: services
                .lines
                .iter()
                .map(|line| pb::Line {
                    index: line.index,
                    number: line.number.clone(),
                    label: line.label.clone(),
                })
                .collect(),
            locale: text(services.locale.as_ref()),
            remaining: services.remaining.map(time::duration),
            reset: services.reset,
            restart_reason: text(services.restart_reason.as_ref()),
            phone_services: services
                .phone_services
                .iter()
                .map(|service| pb::PhoneService {
                    name: service.name.to_string(),
                    url: service.url.clone(),
                    menu: match service.menu {
                        ServiceMenu::Services => pb::ServiceMenu::Services,
                        ServiceMenu::Directories => pb::ServiceMenu::Directories,
                        ServiceMenu::Messages => pb::ServiceMenu::Messages,
                    }
                    .into(),
                })
                .collect(),
        }
    }
}

impl TryFrom<pb::HomeServices> for HomeServices {
    type Error = Malformed;

    fn try_from(services: pb::HomeServices) -> Result<Self, Malformed> {
        Ok(Self {
            user_id: malformed::name("user_id", services.user_id)?,
            profile: malformed::name("profile", services.profile)?,
            base_device: malformed::optional_name("base_device", services.base_device)?,
            call_managers: malformed::list(
                "call_managers",
                services.call_managers,
                SERVERS,
                CallManager::try_from,
            )?,
            tftp_servers: malformed::list(
                "tftp_servers",
                services.tftp_servers,
                SERVERS,
                |host| malformed::text("tftp_servers", host, TEXT_BYTES),
            )?,
            device_pool: malformed::optional_name("device_pool", services.device_pool)?,
            lines: malformed::list("lines", services.lines, LINES, Line::try_from)?,
            phone_services: malformed::list(
                "phone_services",
                services.phone_services,
                SERVICES,
                PhoneService::try_from,
            )?,
            locale: malformed::optional_text("locale", services.locale, TEXT_BYTES)?,
            remaining: services.remaining.as_ref().map(time::duration_from),
            reset: services.reset,
            restart_reason: malformed::optional_text(
                "restart_reason",
                services.restart_reason,
                REASON_BYTES,
            )?,
        })
    }
}

impl TryFrom<pb::CallManager> for CallManager {
    type Error = Malformed;

    fn try_from(server: pb::CallManager) -> Result<Self, Malformed> {
        let priority = u8::try_from(server.priority)
            .ok()
            .filter(|priority| *priority <= PRIORITY)
            .ok_or_else(|| Malformed::new("call_managers.priority", "0 to 4"))?;
        Ok(Self {
            host: malformed::text("call_managers.host", server.host, TEXT_BYTES)?,
            priority,
        })
    }
}

impl TryFrom<pb::PhoneService> for PhoneService {
    type Error = Malformed;

    fn try_from(service: pb::PhoneService) -> Result<Self, Malformed> {
        // A menu that we don't know is the one that every phone has.
        let menu = match service.menu() {
            pb::ServiceMenu::Unspecified | pb::ServiceMenu::Services => ServiceMenu::Services,
            pb::ServiceMenu::Directories => ServiceMenu::Directories,
            pb::ServiceMenu::Messages => ServiceMenu::Messages,
        };
        Ok(Self {
            name: malformed::name("phone_services.name", service.name)?,
            url: malformed::text("phone_services.url", service.url, URL_BYTES)?,
            menu,
        })
    }
}

impl TryFrom<pb::Line> for Line {
    type Error = Malformed;

    fn try_from(line: pb::Line) -> Result<Self, Malformed> {
        if line.index == 0 {
            return Err(Malformed::new(
                "lines.index",
                "1 for the first button, and up",
            ));
        }
        Ok(Self {
            index: line.index,
            number: malformed::text("lines.number", line.number, TEXT_BYTES)?,
            label: malformed::text("lines.label", line.label, TEXT_BYTES)?,
        })
    }
}
