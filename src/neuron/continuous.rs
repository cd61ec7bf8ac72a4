//! The leaky integrate-and-fire neuron in continuous time, as analog chips and Nengo know it: response, smooth
//! response, rates aliased to a time step, inverse. METHOD section 3; nengo/neurons.py, nengo_loihi/neurons.py,
//! Hunsberger and Eliasmith 2015.

/// Times in seconds; the current that just never fires (the rheobase) is 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ContinuousLif {
    /// Membrane time constant.
    pub tau_rc: f64,
    /// Refractory period.
    pub tau_ref: f64,
}

impl ContinuousLif {
    /// Firing rate in spikes per second: 1 / (tau_ref + tau_rc ln(1 + 1/(J-1))) for J > 1, else 0.
    ///
    /// ```
    /// let lif = synfit::neuron::continuous::ContinuousLif { tau_rc: 0.02, tau_ref: 0.002 };
    /// assert_eq!(lif.rate(1.0), 0.0);
    /// assert!((lif.rate(lif.inverse(100.0)) - 100.0).abs() < 1e-9);
    /// ```
    pub fn rate(&self, current: f64) -> f64 {
        self.rate_above(current - 1.0)
    }

    /// Soft LIF: J - 1 replaced by s ln(1 + exp((J - 1)/s)); smooth everywhere, equal to `rate` as s -> 0.
    pub fn smooth_rate(&self, current: f64, s: f64) -> f64 {
        let x = (current - 1.0) / s;
        if x < -30.0 {
            // ln(1 + e^x) is e^x, whose logarithm stays when it underflows itself.
            return 1.0 / (self.tau_ref + self.tau_rc * ((s * x.exp()).ln_1p() - s.ln() - x));
        }
        self.rate_above(s * (x.max(0.0) + (-x.abs()).exp().ln_1p()))
    }

    /// The rate of a simulation with time step `dt`, whose periods are whole steps: (1/dt) / ceil(period/dt).
    pub fn aliased_rate(&self, current: f64, dt: f64) -> f64 {
        match self.rate(current) {
            0.0 => 0.0,
            rate => 1.0 / (dt * (1.0 / rate / dt).ceil()),
        }
    }

    /// The current for a rate in (0, 1/tau_ref): 1 + 1/(exp((1/a - tau_ref)/tau_rc) - 1). A rate of zero or less
    /// gives the rheobase; one of 1/tau_ref or more, infinity.
    pub fn inverse(&self, rate: f64) -> f64 {
        if rate <= 0.0 {
            return 1.0;
        }
        let excess = (1.0 / rate - self.tau_ref) / self.tau_rc;
        if excess <= 0.0 { f64::INFINITY } else { 1.0 + 1.0 / excess.exp_m1() }
    }

    fn rate_above(&self, j: f64) -> f64 {
        if j <= 0.0 { 0.0 } else { 1.0 / (self.tau_ref + self.tau_rc * (1.0 / j).ln_1p()) }
    }
}
