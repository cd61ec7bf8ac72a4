//! What each of several devices did for a conversion.

use serde::{Deserialize, Serialize};

use crate::compute::{Account, Team};

/// Busy seconds of two devices that differ by this factor ask for other shares, if the longer are so many seconds.
const UNEVEN: f64 = 1.5;
const LONG: f64 = 1.0;
/// Largest share that is proposed.
const MOST_SHARE: f64 = 20.0;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceWork {
    pub name: String,
    pub backend: String,
    /// Of what was split: images, rows.
    pub share: u32,
    /// Spent on its parts of what was split.
    pub seconds: f64,
    /// Most bytes in its buffers, which are host memory on the CPU.
    pub peak_bytes: u64,
}

/// A line a device; none of one that worked alone.
pub fn devices(team: &Team) -> Vec<DeviceWork> {
    let work = |a: Account| DeviceWork {
        name: a.name,
        backend: a.backend,
        share: a.share,
        seconds: a.seconds,
        peak_bytes: a.peak_bytes,
    };
    if team.size() > 1 { team.accounts().into_iter().map(work).collect() } else { Vec::new() }
}

/// Says which shares would keep the devices busy alike, where they were not.
pub fn uneven(devices: &[DeviceWork]) -> Option<String> {
    let (least, most) = devices.iter().fold((f64::INFINITY, 0f64), |(l, m), d| (l.min(d.seconds), m.max(d.seconds)));
    if devices.len() < 2 || most < LONG || most < UNEVEN * least {
        return None;
    }
    let speed: Vec<f64> = devices.iter().map(|d| f64::from(d.share) / d.seconds.max(1e-3)).collect();
    let slowest = speed.iter().copied().fold(f64::INFINITY, f64::min);
    let fastest = speed.iter().copied().fold(0.0, f64::max);
    let unit = slowest.max(fastest / MOST_SHARE);
    let share = |s: &f64| ((s / unit).round().max(1.0) as u32).to_string();
    let busy: Vec<String> = devices.iter().map(|d| format!("{} {:.1} s", d.name, d.seconds)).collect();
    let shares: Vec<String> = speed.iter().map(share).collect();
    Some(format!(
        "the devices were busy for {}: shares of {} would be more even (--device 0:3,1 gives device 0 three, device 1 one)",
        busy.join(", "),
        shares.join(" to ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_proposed_by_speed_where_they_are_uneven() {
        let device = |share, seconds| DeviceWork {
            name: format!("d{share}"),
            backend: "cpu".into(),
            share,
            seconds,
            peak_bytes: 0,
        };
        assert_eq!(uneven(&[device(1, 10.0), device(1, 12.0)]), None);
        assert_eq!(uneven(&[device(1, 0.1), device(1, 0.9)]), None);
        assert_eq!(uneven(&[device(1, 100.0)]), None);
        let told = uneven(&[device(2, 10.0), device(1, 20.0)]).unwrap();
        assert!(told.contains("d2 10.0 s, d1 20.0 s") && told.contains("4 to 1 "), "{told}");
        let told = uneven(&[device(1, 900.0), device(1, 1.0), device(1, 90.0)]).unwrap();
        assert!(told.contains("1 to 20 to 1"), "{told}");
    }
}
