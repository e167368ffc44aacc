//! Taints of devices: who bears them, and which rules add them. The scheduler and the loop that
//! evicts ask alike.

use k8s_openapi::api::resource::v1::{DeviceTaint, DeviceTaintRule, DeviceToleration};

/// Does the toleration bear the taint (`resourceclaim.ToleratesTaint`)?
#[must_use]
pub fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let effect = text(&toleration.effect);
    let key = text(&toleration.key);
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match text(&toleration.operator).as_str() {
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        "Exists" => true,
        _ => false,
    }
}

/// Does the rule taint the device? One without a selector taints none.
#[must_use]
pub fn applies(rule: &DeviceTaintRule, driver: &str, pool: &str, device: &str) -> bool {
    let Some(selector) = &rule.spec.device_selector else {
        return false;
    };
    let is = |wanted: &Option<String>, found: &str| {
        wanted.as_deref().is_none_or(|wanted| wanted == found)
    };
    is(&selector.driver, driver) && is(&selector.pool, pool) && is(&selector.device, device)
}
