//! Devices that do one job together. Each has a share of it: what can be split (images, rows) is cut by the shares, in the
//! devices' order.
//!
//! The cut is fixed and not made of measured speeds, nor are parts handed out to whoever is free: a device's part carries
//! its rounding (trained activations, targets, sums over them), so that who did which part belongs to the result, and the
//! same list is to give the same one. Who finds his devices unevenly busy (`accounts`) gives them other shares.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::adapters::{self, Checks, Choices, Limits};
use super::device::Device;
use crate::error::{Error, Result};

/// One device or several. Cheap to clone; all clones are the same team.
#[derive(Debug, Clone)]
pub struct Team {
    members: Arc<[Member]>,
}

#[derive(Debug)]
struct Member {
    device: Device,
    share: u32,
    /// Nanoseconds that it spent on its parts.
    busy: AtomicU64,
}

/// What a device did for its team.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    pub name: String,
    pub backend: String,
    pub share: u32,
    /// Seconds that it spent on parts of what was split.
    pub seconds: f64,
    /// Most bytes that its buffers held.
    pub peak_bytes: u64,
}

/// Tells a member that another one failed: what it does now nobody will read.
#[derive(Debug, Default)]
pub struct Stop(AtomicBool);

impl Stop {
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl From<&Device> for Team {
    fn from(device: &Device) -> Self {
        Team { members: Arc::new([Member::new(device.clone(), 1)]) }
    }
}

impl From<&Team> for Team {
    fn from(team: &Team) -> Self {
        team.clone()
    }
}

impl Member {
    fn new(device: Device, share: u32) -> Self {
        Member { device, share, busy: AtomicU64::new(0) }
    }
}

impl Team {
    /// Opens the chosen devices, GPUs with a budget of so many bytes each (see `Device::room`).
    ///
    /// # Errors
    /// Input: no such adapter, or the same one twice. Work: an adapter refuses.
    pub fn open(choices: &Choices, budget: Option<u64>) -> Result<Team> {
        let open = |(adapter, share)| {
            let device = Device::of_adapter(adapter, Limits::Own, Checks::Auto)?;
            Ok((device.with_budget(budget), share))
        };
        Team::of(adapters::choose_all(choices)?.into_iter().map(open).collect::<Result<_>>()?)
    }

    /// These devices with their shares.
    ///
    /// # Errors
    /// Input: none, or a share of zero.
    pub fn of(devices: Vec<(Device, u32)>) -> Result<Team> {
        if devices.is_empty() || devices.iter().any(|(_, share)| *share == 0) {
            return Err(Error::input("device", "a list needs a device, and a device a share"));
        }
        Ok(Team { members: devices.into_iter().map(|(device, share)| Member::new(device, share)).collect() })
    }

    /// The device that does what is not split.
    pub fn first(&self) -> &Device {
        &self.members[0].device
    }

    pub fn devices(&self) -> impl ExactSizeIterator<Item = &Device> {
        self.members.iter().map(|m| &m.device)
    }

    /// Devices; at least one.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// The part of `range` that each device does: together all of it, in order. Small ranges may leave a device without.
    pub fn split(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let total: u64 = self.members.iter().map(|m| u64::from(m.share)).sum();
        let cut = |before: u64| range.start + (range.len() as u128 * u128::from(before) / u128::from(total)) as usize;
        let mut before = 0;
        let part = |m: &Member| {
            let from = cut(before);
            before += u64::from(m.share);
            from..cut(before)
        };
        self.members.iter().map(part).collect()
    }

    /// Runs `work` on every device with its part of `parts` (one a device), all at the same time, and gives their results
    /// in the devices' order. What runs long asks `Stop` now and then, and may then return anything.
    ///
    /// # Errors
    /// The first device's that failed, in their order.
    pub fn each<P: Send, R: Send>(
        &self,
        parts: impl IntoIterator<Item = P>,
        work: impl Fn(&Device, P, &Stop) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let stop = Stop::default();
        let span = tracing::Span::current();
        let one = |(member, part): (&Member, P)| {
            let start = Instant::now();
            let done = span.in_scope(|| work(&member.device, part, &stop));
            if done.is_err() {
                stop.0.store(true, Ordering::Relaxed);
            }
            member.busy.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            done
        };
        let mut all = self.members.iter().zip(parts);
        let Some(first) = all.next() else { return Ok(Vec::new()) };
        if self.size() == 1 {
            return Ok(vec![one(first)?]);
        }
        std::thread::scope(|scope| {
            let others: Vec<_> = all.map(|member| scope.spawn(|| one(member))).collect();
            let first = one(first);
            let joined = others.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            // all are waited for before the first failure is told
            let results: Vec<_> = std::iter::once(first).chain(joined).collect();
            results.into_iter().collect()
        })
    }

    /// What each device did so far.
    pub fn accounts(&self) -> Vec<Account> {
        let account = |m: &Member| Account {
            name: m.device.info().name.clone(),
            backend: m.device.info().backend.clone(),
            share: m.share,
            seconds: m.busy.load(Ordering::Relaxed) as f64 * 1e-9,
            peak_bytes: m.device.peak_bytes(),
        };
        self.members.iter().map(account).collect()
    }
}

impl std::fmt::Display for Team {
    /// The devices' names.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, device) in self.devices().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { " + " }, device.info().name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn team(shares: &[u32]) -> Team {
        Team::of(shares.iter().map(|s| (Device::cpu(), *s)).collect()).unwrap()
    }

    #[test]
    fn parts_follow_the_shares_and_leave_nothing_out() {
        assert_eq!(team(&[3, 1]).split(0..100), [0..75, 75..100]);
        assert_eq!(team(&[1, 1, 1]).split(10..12), [10..10, 10..11, 11..12]);
        assert_eq!(team(&[1, 1]).split(5..5), [5..5, 5..5]);
        for shares in [&[1][..], &[1, 1], &[2, 3, 5], &[1000, 1, 1, 7]] {
            for count in 0..50 {
                let parts = team(shares).split(7..7 + count);
                let mut at = 7;
                for part in &parts {
                    assert_eq!(part.start, at);
                    at = part.end;
                }
                assert_eq!((at, parts.len()), (7 + count, shares.len()));
            }
        }
        assert!(Team::of(vec![]).is_err() && Team::of(vec![(Device::cpu(), 0)]).is_err());
    }

    #[test]
    fn results_come_in_order_and_the_first_failure_is_told() {
        let all = team(&[1, 1, 1]);
        // the later a device, the sooner it is done
        let slow = |_: &Device, k: u64, _: &Stop| {
            std::thread::sleep(std::time::Duration::from_millis(20 * (3 - k)));
            Ok(k)
        };
        assert_eq!(all.each(0..3, slow).unwrap(), [0, 1, 2]);
        assert!(all.accounts().iter().all(|a| a.seconds >= 0.015), "{:?}", all.accounts());
        let failed = all.each(0..3u32, |_, k, stop| match k {
            // goes on until another one fails
            0 => {
                while !stop.asked() {
                    std::thread::yield_now();
                }
                Ok(())
            }
            k => Err(Error::work("", format!("device {k}"))),
        });
        assert_eq!(failed.unwrap_err().message, "device 1");
    }
}
