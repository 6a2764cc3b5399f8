// Parameters -> curves, and the deformation shared by mesh and landmarks.
#include "native/face_model.h"

namespace pyfacelat::face {

const char* const kParameterNames[kNumParameters] = {"yaw",
                                                     "pitch",
                                                     "roll",
                                                     "jaw_open",
                                                     "smile",
                                                     "smile_skew",
                                                     "pucker",
                                                     "brow_raise",
                                                     "brow_skew",
                                                     "brow_frown",
                                                     "eye_open",
                                                     "eye_skew",
                                                     "gaze_x",
                                                     "gaze_y",
                                                     "face_width",
                                                     "jaw_width",
                                                     "chin_length",
                                                     "nose_width",
                                                     "nose_length",
                                                     "eye_size",
                                                     "eye_spacing",
                                                     "brow_thickness",
                                                     "lip_fullness",
                                                     "mouth_width",
                                                     "skin_tone",
                                                     "hair_tone",
                                                     "hair_hue",
                                                     "iris_color",
                                                     "hair_length",
                                                     "hair_volume",
                                                     "hair_fringe",
                                                     "hair_part",
                                                     "hair_curl",
                                                     "beard",
                                                     "lip_color",
                                                     "light_azimuth",
                                                     "light_elevation",
                                                     "background_light",
                                                     "background_hue"};

namespace {

constexpr float kDegree = 0.017453292519943295f;

void euler(float yaw, float pitch, float roll, float out[9]) {
  // R = Rz(roll) Rx(pitch) Ry(yaw); positive yaw turns the face to the right of the image,
  // positive pitch lifts it.
  const float cy = std::cos(yaw), sy = std::sin(yaw), cp = std::cos(pitch), sp = std::sin(pitch);
  const float cr = std::cos(roll), sr = std::sin(roll);
  const float m[9] = {cy, 0, sy, -sp * -sy, cp, sp * cy, -sy * cp, -sp, cp * cy};
  for (int j = 0; j < 3; ++j) {
    out[j] = cr * m[j] - sr * m[3 + j];
    out[3 + j] = sr * m[j] + cr * m[3 + j];
    out[6 + j] = m[6 + j];
  }
}

Vec3 apply(const float m[9], Vec3 v) {
  return {m[0] * v.x + m[1] * v.y + m[2] * v.z, m[3] * v.x + m[4] * v.y + m[5] * v.z,
          m[6] * v.x + m[7] * v.y + m[8] * v.z};
}

// Smooth max(0, x) with a rounding of width w: shut mouths and lids stay shut without a kink.
float soft_positive(float x, float w) { return 0.5f * (x + std::sqrt(x * x + w * w)); }

Vec3 linear(float r, float g, float b) {
  return {std::pow(r, 2.2f), std::pow(g, 2.2f), std::pow(b, 2.2f)};
}

// Piecewise linear through equally spaced keys.
template <int N>
Vec3 ramp(const Vec3 (&keys)[N], float t) {
  t = clamp01(t) * (N - 1);
  const int i = std::min(static_cast<int>(t), N - 2);
  return mix(keys[i], keys[i + 1], t - i);
}

}  // namespace

Face::Face(const double* params) {
  for (int i = 0; i < kNumParameters; ++i) p[i] = static_cast<float>(params[i]);
  euler(p[kYaw] * kDegree, p[kPitch] * kDegree, p[kRoll] * kDegree, rotation);
  euler(0.35f * p[kYaw] * kDegree, 0.15f * p[kPitch] * kDegree, 0.4f * p[kRoll] * kDegree,
        body_rotation);

  const float jaw = soft_positive(p[kJawOpen] - 0.02f, 0.02f);
  const float smile = p[kSmile];
  pucker = p[kPucker];

  eye_x = 0.325f * p[kEyeSpacing];
  eye_y = 0.015f;
  eye_w = 0.162f * p[kEyeSize];
  eye_up = 0.090f * p[kEyeSize];
  eye_low = 0.050f * p[kEyeSize] - 0.018f * std::max(0.0f, smile);
  for (int side = 0; side < 2; ++side) {
    const float sign = side == 0 ? -1.0f : 1.0f;
    eye_open[side] = soft_positive(p[kEyeOpen] + sign * p[kEyeSkew], 0.03f);
    brow_raise[side] = p[kBrowRaise] + sign * p[kBrowSkew];
    this->smile[side] = smile + sign * p[kSmileSkew];
    corner_dy[side] = 0.012f + 0.098f * this->smile[side] - 0.040f * jaw;
  }
  gaze_x = p[kGazeX];
  gaze_y = p[kGazeY];
  brow_frown = p[kBrowFrown];
  brow_half = 0.030f * p[kBrowThickness];

  nose_y = -0.40f * p[kNoseLength];
  nose_tip_y = nose_y + 0.07f;
  nose_w = p[kNoseWidth];

  mouth_y = -0.645f + 0.25f * (nose_y + 0.40f);
  const float pk = std::max(0.0f, pucker);
  mouth_w = 0.255f * p[kMouthWidth] * (1 + 0.26f * smile - 0.46f * pucker - 0.04f * jaw);
  mouth_wi = mouth_w * (0.90f - 0.08f * pk);
  gap_up = jaw * (0.020f + 0.03f * std::max(0.0f, smile) + 0.02f * pk);
  gap_low = 0.11f * jaw;
  jaw_drop = 0.36f * jaw * (1 - 0.25f * pk);
  const float full = p[kLipFullness];
  lip_up = 0.066f * full * (1 - 0.22f * smile + 0.45f * pucker);
  lip_low = 0.086f * full * (1 - 0.18f * smile + 0.40f * pucker);

  const float length = p[kHairLength];
  hair_long = smoothstep(0.15f, 0.75f, length);
  hair_length = length;
  hair_volume = p[kHairVolume];
  hair_curl = std::max(0.0f, p[kHairCurl]);
  fringe_y = 0.70f - 0.36f * p[kHairFringe];
  part_angle = 0.55f * p[kHairPart];
  ear_scale = 1.0f - 0.75f * smoothstep(0.10f, 0.42f, length);

  const Vec3 skins[5] = {linear(0.97f, 0.82f, 0.74f), linear(0.91f, 0.70f, 0.57f),
                         linear(0.76f, 0.53f, 0.38f), linear(0.55f, 0.35f, 0.24f),
                         linear(0.36f, 0.22f, 0.155f)};
  skin = ramp(skins, p[kSkinTone]);
  const Vec3 hairs[4] = {linear(0.13f, 0.11f, 0.11f), linear(0.33f, 0.22f, 0.16f),
                         linear(0.60f, 0.42f, 0.25f), linear(0.86f, 0.73f, 0.52f)};
  const Vec3 warm = {1.35f, 0.80f, 0.52f}, ash = {0.86f, 0.98f, 1.14f};
  hair = ramp(hairs, p[kHairTone]);
  const float hue = p[kHairHue];
  hair = hair * mix(Vec3{1, 1, 1}, hue > 0 ? warm : ash, std::fabs(hue));
  const Vec3 irises[4] = {linear(0.27f, 0.16f, 0.10f), linear(0.50f, 0.34f, 0.16f),
                          linear(0.38f, 0.52f, 0.36f), linear(0.38f, 0.55f, 0.70f)};
  iris = ramp(irises, p[kIrisColor]);
  // Lips: a rose of the skin, lighter than dark skin and darker than light skin, so that they read
  // on every tone.
  const float dark = smoothstep(0.35f, 1.0f, p[kSkinTone]);
  const Vec3 natural =
      mix(skin * Vec3{0.86f, 0.50f, 0.50f}, linear(0.62f, 0.33f, 0.31f), 0.25f + 0.45f * dark);
  const Vec3 paint = mix(linear(0.80f, 0.25f, 0.30f), linear(0.66f, 0.16f, 0.22f), dark);
  lip = mix(natural, paint, clamp01(p[kLipColor]));

  const float az = p[kLightAzimuth] * kDegree, el = p[kLightElevation] * kDegree;
  light = {std::sin(az) * std::cos(el), std::sin(el), std::cos(az) * std::cos(el)};
  half = normalize(light + Vec3{0, 0, 1});
  light_azimuth_sin = std::sin(az);

  const float bg = p[kBackgroundLight];
  const Vec3 neutral = linear(0.34f + 0.42f * bg, 0.36f + 0.42f * bg, 0.40f + 0.42f * bg);
  const Vec3 warm_bg = {1.28f, 0.98f, 0.74f}, cool_bg = {0.66f, 0.98f, 1.34f};
  const float bh = p[kBackgroundHue];
  background = neutral * mix(Vec3{1, 1, 1}, bh > 0 ? warm_bg : cool_bg, std::fabs(bh));
  // Clothes answer the background: teal before warm walls, brick before cool ones.
  const Vec3 cloths[3] = {linear(0.60f, 0.34f, 0.29f), linear(0.36f, 0.40f, 0.50f),
                          linear(0.20f, 0.46f, 0.47f)};
  cloth = ramp(cloths, 0.5f + 0.5f * bh);
}

float Face::line_y(float x) const {
  const float s2 = std::min(sq(x / mouth_w), 1.5f);
  return mouth_y + corner_dy[x < 0 ? 0 : 1] * s2;
}

namespace {
// (1 - s^2)^0.75: round ends with a flatter middle than an ellipse.
float arc(float s) {
  const float c = std::max(0.0f, 1 - s * s);
  const float r = std::sqrt(c);
  return r * std::sqrt(r);
}
}  // namespace

float Face::inner_upper(float x) const { return line_y(x) + gap_up * arc(x / mouth_wi); }
float Face::inner_lower(float x) const { return line_y(x) - gap_low * arc(x / mouth_wi); }

float Face::outer_upper(float x) const {
  const float s = x / mouth_w;
  const float c = std::max(0.0f, 1 - s * s);
  return inner_upper(x) + lip_up * c * (1.06f - 0.26f * fast_exp(-sq(s / 0.17f)));
}

float Face::outer_lower(float x) const { return inner_lower(x) - lip_low * arc(x / mouth_w); }

float Face::drop(float x, float y) const {
  if (jaw_drop <= 0) return 0;
  const float upper = inner_upper(x);
  const float gap = upper - inner_lower(x);
  const float side = smoothstep(0.55f, 1.2f, std::fabs(x) / mouth_w);
  const float width = 0.03f + gap + 0.42f * side;
  const float t = clamp01((upper + 0.15f * side - y) / width);
  return jaw_drop * t * t * (3 - 2 * t);
}

float Face::lid_lower(float s) const {
  return eye_y - 0.012f * s - eye_low * arc(s) * (1 - 0.12f * s);
}

float Face::lid_upper(int side, float s) const {
  // s = -1 outer corner, 1 inner corner; the outer corner sits a little higher.
  const float open = eye_y - 0.012f * s + eye_up * arc(s) * (1 + 0.10f * s);
  return mix(lid_lower(s), open, eye_open[side]);
}

Vec2 Face::brow(int side, float t) const {
  const float spread = eye_x / 0.325f;
  const float x =
      (0.125f - 0.03f * brow_frown) * spread + t * (0.395f + 0.03f * brow_frown) * spread;
  const float arch = 0.055f * (1 - sq((t - 0.62f) / 0.62f));
  const float inner = sq(1 - t);
  const float y = eye_y + 0.155f + arch + brow_raise[side] * (0.085f - 0.02f * t) -
                  brow_frown * (0.085f * inner - 0.01f);
  return {x, y};
}

float Face::hairline(float azimuth) const {
  const float a = std::fabs(azimuth);
  const float away = azimuth - part_angle;
  // Higher at the parting, sweeping down to both temples.
  const float front = fringe_y + 0.13f * fast_exp(-sq(away / 0.30f)) - 0.05f * sq(azimuth);
  // Short hair: sideburn, over the ear, nape. Long hair: a curtain to hair_length.
  const float cut =
      mix(0.06f, 0.16f, smoothstep(1.25f, 1.45f, a)) - 0.80f * smoothstep(1.75f, 2.3f, a);
  const float curtain = -0.10f - 1.55f * hair_length + 0.16f * smoothstep(2.0f, 1.15f, a);
  const float side = mix(cut, std::min(cut, curtain), smoothstep(0.0f, 0.35f, hair_length));
  // Curls end unevenly.
  const float uneven = 0.030f * hair_curl * std::sin(15 * a + 0.6f);
  return mix(front, side, smoothstep(0.80f, 1.32f, a)) + uneven;
}

Vec3 canonical_from_xy(float x, float y) {
  const float rest =
      1 - std::pow(std::fabs(x) / kHeadA, kHeadN) - std::pow(std::fabs(y) / kHeadB, kHeadN);
  return {x, y, kHeadC * std::pow(std::max(rest, 0.0f), 1 / kHeadN)};
}

Vec3 canonical_from_direction(float azimuth, float elevation) {
  const float x = std::sin(azimuth) * std::cos(elevation), y = std::sin(elevation);
  const float z = std::cos(azimuth) * std::cos(elevation);
  const float t = std::pow(std::pow(std::fabs(x), kHeadN) + std::pow(std::fabs(y), kHeadN) +
                               std::pow(std::fabs(z), kHeadN),
                           -1 / kHeadN);
  return {kHeadA * t * x, kHeadB * t * y, kHeadC * t * z};
}

Vec3 Face::deform(Vec3 c) const {
  const float ax = std::fabs(c.x);
  const int side = c.x < 0 ? 0 : 1;
  Vec3 v = c;
  const float front = smoothstep(-0.05f, 0.42f, c.z);
  const float y = c.y;

  // Profile: the lower face comes forward to a chin, the skull's back stays.
  if (y < 0) v.z += 0.33f * smoothstep(-0.18f, -1.0f, y) * front * bump(c.x, 0, 0.62f, 1);
  const float low = smoothstep(0.02f, -0.92f, y);
  v.x *= 1 + low * (0.65f * (p[kJawWidth] - 1) - 0.05f);
  v.y -= (p[kChinLength] - 1) * 0.55f * smoothstep(-0.72f, -1.04f, y);
  // Temples slightly narrower than cheekbones and skull.
  v.x *= 1 - 0.045f * bump(0, y - 0.25f, 1, 0.25f) * smoothstep(-0.1f, 0.4f, c.z);

  if (front > 0) {
    float z = 0, dy = 0;
    // Each group of bumps is skipped where all of it is below a hundredth of a pixel.
    if (y > -0.30f && y < 0.55f) {  // brow ridge, sockets, eyeballs
      z += 0.030f * bump(ax - 0.27f, y - 0.19f, 0.22f, 0.07f) * (1 + 0.5f * brow_frown);
      z -= 0.075f * bump(ax - eye_x, y - eye_y - 0.03f, 0.17f, 0.12f);
      z -= 0.035f * bump(ax - 0.12f, y - 0.04f, 0.06f, 0.10f);
      z += 0.052f * bump(ax - eye_x, y - eye_y - 0.005f, 0.125f, 0.085f);
    }
    if (y > nose_y - 0.30f && y < 0.45f &&
        ax < 0.42f) {  // nose: ridge growing towards the tip, ball, wings
      const float bridge =
          smoothstep(0.20f, nose_tip_y, y) * smoothstep(nose_y - 0.10f, nose_tip_y, y);
      const float ridge = 0.04f * bump(0, y - 0.10f, 1, 0.14f) + 0.20f * bridge;
      z += ridge * bump(c.x, 0, 0.065f + 0.045f * nose_w * bridge, 1);
      z += 0.065f * bump(c.x, y - nose_tip_y, 0.075f * nose_w, 0.075f);
      z += 0.085f * bump(ax - 0.095f * nose_w, y - nose_y - 0.035f, 0.050f * nose_w, 0.060f);
      z -= 0.020f * bump(ax - 0.17f * nose_w, y - nose_y + 0.01f, 0.05f, 0.07f);
    }
    // Cheeks.
    const float smile = this->smile[side];
    z += (0.045f + 0.050f * std::max(smile, -0.3f)) * bump(ax - 0.38f, y + 0.27f, 0.19f, 0.18f);
    z -= 0.020f * bump(ax - 0.46f, y + 0.62f, 0.16f, 0.18f);
    if (y < mouth_y + 0.50f) {  // muzzle, lips, chin
      const float my = y - mouth_y;
      z += 0.050f * bump(c.x, my, 0.30f, 0.19f);
      if (std::fabs(my) < 0.42f && ax < 1.5f * mouth_w) {
        const float s = c.x / mouth_w;
        const float taper = std::max(0.0f, 1 - s * s * 0.85f);
        const float iu = inner_upper(c.x), il = inner_lower(c.x);
        const float out = 0.042f * (1 + 0.9f * std::max(0.0f, pucker)) * taper;
        z += out * bump(0, y - iu - 0.5f * lip_up, 1, 0.045f);
        z += out * 1.15f * bump(0, y - il + 0.5f * lip_low, 1, 0.052f);
        const float seam = y > iu ? y - iu : (y < il ? il - y : 0.0f);
        z -= 0.030f * fast_exp(-sq(seam / 0.018f)) * std::max(0.0f, 1 - s * s);
        z += 0.05f * pucker * bump(c.x, my, 0.16f, 0.12f);
        z -= 0.022f * bump(ax - mouth_w - 0.015f, y - mouth_y - corner_dy[side], 0.05f, 0.07f);
      }
      z -= 0.020f * bump(c.x, y + 0.82f, 0.16f, 0.060f);
      z += 0.060f * bump(c.x, y + 0.945f, 0.17f, 0.11f);
    }
    if (y > -0.10f) dy += brow_raise[side] * 0.012f * bump(ax - 0.32f, y - 0.3f, 0.25f, 0.15f);
    v.z += z * front;
    v.y += dy * front;
    const float hinge = smoothstep(-0.25f, 0.45f, c.z);
    const float d = drop(c.x, y) * hinge;
    v.y -= d;
    v.z -= 0.18f * d;
    v.x *= 1 - 0.10f * d * smoothstep(0.3f, 0.6f, ax);
  }
  v.x *= kWiden * p[kFaceWidth];
  return v;
}

Vec3 Face::rotate(Vec3 v) const { return apply(rotation, v); }
Vec3 Face::rotate_body(Vec3 v) const { return apply(body_rotation, v); }

namespace {
constexpr Vec3 kPivot = {0, -0.62f, -0.22f};  // where skull meets spine
}

Vec3 Face::pose(Vec3 v) const { return rotate(v - kPivot) + kPivot; }

void landmarks3d(const Face& f, Vec3 out[kNumLandmarks]) {
  auto put = [&](int i, float x, float y) { out[i] = f.pose(f.deform(canonical_from_xy(x, y))); };
  for (int i = 0; i < 17; ++i) {
    const float u = (i - 8) / 8.0f, m = std::fabs(u);
    const float y = -0.972f + 0.972f * std::pow(m, 1.4f);
    const float a = std::copysign(1.45f * std::pow(m, 0.62f), u);
    const float ring =
        std::pow(std::max(0.0f, 1 - std::pow(std::fabs(y) / kHeadB, kHeadN)), 1 / kHeadN);
    const float sx = std::sin(a), cz = std::cos(a);
    const float t =
        ring *
        std::pow(std::pow(std::fabs(sx), kHeadN) + std::pow(std::fabs(cz), kHeadN), -1 / kHeadN);
    out[i] = f.pose(f.deform({kHeadA * t * sx, y, kHeadC * t * cz}));
  }
  for (int i = 0; i < 5; ++i) {
    const Vec2 left = f.brow(0, 1 - i / 4.0f), right = f.brow(1, i / 4.0f);
    put(17 + i, -left.x, left.y);
    put(22 + i, right.x, right.y);
  }
  for (int i = 0; i < 4; ++i) put(27 + i, 0, mix(0.02f, f.nose_tip_y, i / 3.0f));
  const float nx[5] = {-0.115f, -0.058f, 0, 0.058f, 0.115f},
              ny[5] = {0.012f, -0.012f, -0.022f, -0.012f, 0.012f};
  for (int i = 0; i < 5; ++i) put(31 + i, nx[i] * f.nose_w, f.nose_y + ny[i]);
  const float es[6] = {-1, -0.38f, 0.38f, 1, 0.38f, -0.38f};
  const int mirrored[6] = {45, 44, 43, 42, 47, 46};
  for (int i = 0; i < 6; ++i) {
    for (int side = 0; side < 2; ++side) {
      const float y = i <= 3 ? f.lid_upper(side, es[i]) : f.lid_lower(es[i]);
      const float x = f.eye_x - es[i] * f.eye_w;
      put(side == 0 ? 36 + i : mirrored[i], side == 0 ? -x : x, y);
    }
  }
  const float ou[7] = {-1, -0.6f, -0.2f, 0, 0.2f, 0.6f, 1}, ol[5] = {0.62f, 0.3f, 0, -0.3f, -0.62f};
  for (int i = 0; i < 7; ++i) put(48 + i, ou[i] * f.mouth_w, f.outer_upper(ou[i] * f.mouth_w));
  for (int i = 0; i < 5; ++i) put(55 + i, ol[i] * f.mouth_w, f.outer_lower(ol[i] * f.mouth_w));
  const float iu[5] = {-1, -0.45f, 0, 0.45f, 1};
  for (int i = 0; i < 5; ++i) put(60 + i, iu[i] * f.mouth_wi, f.inner_upper(iu[i] * f.mouth_wi));
  for (int i = 0; i < 3; ++i)
    put(65 + i, iu[3 - i] * f.mouth_wi, f.inner_lower(iu[3 - i] * f.mouth_wi));
}

}  // namespace pyfacelat::face
