//! Adam, of parameters of one size.

const DECAY: [f64; 2] = [0.9, 0.999];

pub struct Adam {
    steps: i32,
    mean: Vec<f64>,
    square: Vec<f64>,
}

impl Adam {
    pub fn new(len: usize) -> Self {
        Self { steps: 0, mean: vec![0.0; len], square: vec![0.0; len] }
    }

    /// How each parameter moves: by about `rate` against its gradient; where that has been zero all along, not at all.
    pub fn step(&mut self, rate: f64, gradient: &[f32]) -> Vec<f32> {
        self.steps += 1;
        let [first, second] = DECAY.map(|d| 1.0 - d.powi(self.steps));
        let moments = self.mean.iter_mut().zip(&mut self.square);
        let moved = gradient.iter().zip(moments).map(|(&g, (mean, square))| {
            let g = f64::from(g);
            *mean = DECAY[0] * *mean + (1.0 - DECAY[0]) * g;
            *square = DECAY[1] * *square + (1.0 - DECAY[1]) * g * g;
            if *square > 0.0 { (-rate * (*mean / first) / (*square / second).sqrt()) as f32 } else { 0.0 }
        });
        moved.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_the_least_of_a_bowl_and_leaves_what_has_no_gradient() {
        let mut p = [3.0f32, -2.0, 7.0];
        let mut adam = Adam::new(3);
        for k in 0..2000 {
            // one bowl a thousand times as steep as the other
            let gradient = [p[0] - 1.0, 1e3 * (p[1] - 0.5), 0.0];
            let moved = adam.step(0.02 * (1.0 - f64::from(k) / 2000.0), &gradient);
            p.iter_mut().zip(moved).for_each(|(p, by)| *p += by);
        }
        assert!((p[0] - 1.0).abs() < 1e-3 && (p[1] - 0.5).abs() < 1e-3, "{p:?}");
        assert_eq!(p[2], 7.0);
    }
}
