// Colours as analytic functions of canonical coordinates, then one light model for all parts.
//
// Light: wrapped Lambert key, hemisphere ambient times painted occlusion, a weak fill from the
// other side, a broad specular lobe, a warm terminator, a Fresnel rim. All in linear light.
#include "native/face_raster.h"

namespace pyfacelat::face {
namespace {

struct Material {
  Vec3 albedo;
  float occlusion = 1;
  float gloss = 0;      // strength of the specular lobe
  float sharpness = 0;  // 0 broad (skin), 1 tight (eyes, wet lips)
  float warmth = 0;     // subsurface reddening at the terminator
};

Vec3 light_up(const Face& f, Vec3 n, const Material& m) {
  const float ndl = dot(n, f.light);
  const float key = sq(clamp01((ndl + 0.38f) / 1.38f));
  const float sky = 0.5f + 0.5f * n.y;
  const Vec3 ambient = mix(Vec3{0.24f, 0.21f, 0.20f}, Vec3{0.46f, 0.48f, 0.52f}, sky);
  const float fill = 0.16f * clamp01(-0.8f * f.light_azimuth_sin * n.x + 0.45f * n.z);
  Vec3 c = m.albedo * (Vec3{1.10f, 1.05f, 0.97f} * (0.95f * key * (0.45f + 0.55f * m.occlusion)) +
                       ambient * m.occlusion + Vec3{1, 0.95f, 0.9f} * (fill * m.occlusion));
  const float terminator = m.warmth * fast_exp(-sq((ndl - 0.05f) / 0.32f));
  c = c + m.albedo * Vec3{0.10f, 0.018f, 0.0f} * terminator;
  const float ndh = clamp01(dot(n, f.half));
  const float e2 = sq(sq(ndh)), e8 = sq(e2), e16 = sq(e8), e64 = sq(sq(e16));
  const float lobe = mix(e16, e64 * 1.8f, m.sharpness);
  const float rim = sq(1 - clamp01(n.z)) * (1 - clamp01(n.z));
  const float shine = (m.gloss * lobe + 0.10f * rim * m.warmth) * m.occlusion;
  return c + Vec3{1.0f, 0.97f, 0.93f} * shine;
}

// 0 outside to 1 inside over the distance w, from a signed distance.
float inside(float d, float w) { return smoothstep(-w, w, d); }

Shaded shade_eye(const Face& f, int side, float ax, float y, float s, Vec3 n) {
  const float up = f.lid_upper(side, s), low = f.lid_lower(s);
  const float sign = side == 0 ? -1.0f : 1.0f;
  // Iris: a disc on the eyeball; the gaze moves both eyes the same way.
  const float gx = sign * f.gaze_x * 0.066f * f.eye_w / 0.162f, gy = f.gaze_y * 0.046f;
  const float r_iris = 0.080f * std::sqrt(f.eye_w / 0.162f);
  const float dx = ax - f.eye_x - gx, dy = y - f.eye_y - 0.014f - gy;
  const float r = std::sqrt(dx * dx + dy * dy) / r_iris;
  Vec3 c = {0.86f, 0.84f, 0.82f};
  const float corner = smoothstep(0.55f, 1.0f, std::fabs(s));
  c = c * mix(Vec3{1, 1, 1}, Vec3{0.80f, 0.62f, 0.58f}, corner);
  const float px = 0.07f;
  if (r < 1 + px) {
    Vec3 i = f.iris * (0.75f + 0.75f * smoothstep(0.35f, 0.85f, r));
    i = i * (1 - 0.62f * smoothstep(0.76f, 1.0f, r));                 // limbal ring
    i = i * (1 + 0.35f * clamp01(-dy / r_iris));                      // light collects below
    i = mix(i, Vec3{0.012f, 0.010f, 0.010f}, inside(0.44f - r, px));  // pupil
    c = mix(c, i, inside(1 - r, px));
  }
  // The lid's shadow on the ball, then the lash line.
  const float gap = up - y;
  float occlusion = mix(0.42f, 1.0f, smoothstep(0.0f, 0.050f, gap)) *
                    mix(0.8f, 1.0f, smoothstep(0.0f, 0.02f, y - low));
  const float k = 1 / f.eye_w;
  const Vec3 ball = normalize(Vec3{sign * (ax - f.eye_x) * k * 0.55f, (y - f.eye_y) * k * 0.8f, 1});
  const Vec3 m = normalize(mix(n, f.rotate(ball), 0.75f));
  Material mat{c, occlusion, 0.05f, 1, 0.2f};
  Vec3 out = light_up(f, m, mat);
  // Catch light: follows the lamp, sits over the iris.
  const float hx = (sign * ax - sign * f.eye_x) - f.gaze_x * 0.05f - 0.030f * f.light_azimuth_sin;
  const float hy = y - f.eye_y - 0.014f - gy - 0.026f;
  const float glint =
      inside(0.016f - std::sqrt(hx * hx + hy * hy), 0.007f) * smoothstep(0.0f, 0.02f, gap);
  out = mix(out, Vec3{1.3f, 1.3f, 1.3f}, 0.9f * glint);
  return {out, kPartEye};
}

Shaded shade_mouth(const Face& f, const Surface& g) {
  // Look through the opening: the view ray continues to the teeth, which stay with the upper jaw.
  const float y = g.canonical.y - f.drop(g.canonical.x, g.canonical.y);
  const Vec3 view = {f.rotation[6], f.rotation[7],
                     f.rotation[8]};  // towards the camera, head space
  const float slope = 1 / std::max(view.z, 0.35f);
  const float up = f.inner_upper(g.canonical.x);
  const float low = f.inner_lower(g.canonical.x);
  const float bottom = low - f.drop(g.canonical.x, low);
  const float tx = g.canonical.x - view.x * slope * 0.06f, ty = y - view.y * slope * 0.06f;
  const float s = tx / f.mouth_wi;
  const float opening = up - bottom;
  Vec3 c = {0.075f, 0.016f, 0.018f};
  // Tongue: a soft mound on the floor of the mouth, deeper than the teeth.
  const float gx = g.canonical.x - view.x * slope * 0.16f, gy = y - view.y * slope * 0.12f;
  const float centre = f.mouth_y - f.gap_low - f.jaw_drop - 0.015f;
  const float tongue = 1 - sq(gx / 0.150f) - sq((gy - centre) / (0.085f + 0.10f * f.jaw_drop));
  c = mix(c, Vec3{0.46f, 0.13f, 0.13f} * (0.55f + 0.45f * clamp01(tongue)),
          smoothstep(0.0f, 0.35f, tongue));
  // Upper teeth: an even band with an arched edge, fading into the corners and out of thin slits.
  const float edge = f.mouth_y + 0.012f - 0.070f + 0.05f * sq(tx / 0.22f);
  float teeth = inside(ty - edge, 0.010f);
  teeth *= smoothstep(1.0f, 0.62f, std::fabs(s)) * smoothstep(0.012f, 0.075f, opening);
  const float seam = 1 - 0.10f * sq(sq(std::sin(tx * 52.0f)));
  const Vec3 enamel =
      Vec3{0.80f, 0.77f, 0.70f} * (seam * mix(0.72f, 1.0f, smoothstep(0.30f, 0.0f, std::fabs(tx))));
  c = mix(c, enamel, teeth);
  // Occlusion by the lips, stronger under the upper one.
  const float depth =
      smoothstep(0.0f, 0.045f, up - y) * smoothstep(0.0f, 0.03f, y - bottom + 0.01f);
  const float occlusion = mix(0.35f, 0.95f, depth);
  const Vec3 n = normalize(mix(g.normal, f.rotate({0, 0.1f, 1}), 0.8f));
  return {light_up(f, n, {c, occlusion, 0.02f, 1, 0}), kPartMouth};
}

Shaded shade_skin(const Face& f, const Surface& g) {
  const float x = g.canonical.x, y = g.canonical.y, ax = std::fabs(x);
  const int side = x < 0 ? 0 : 1;
  const bool front = g.canonical.z > 0.05f;
  Part part = kPartSkin;
  Material m{f.skin, 1, 0.045f, 0, 1};
  Vec3& c = m.albedo;
  Vec3 n = g.normal;

  if (front) {
    // Blood: cheeks, nose, chin a little redder; temples and sockets cooler.
    const float smile = std::max(0.0f, f.smile[side]);
    float blush = 0, ao = 1;
    if (y < 0.20f) {
      blush = (0.26f + 0.12f * smile) * bump(ax - 0.40f, y + 0.30f, 0.17f, 0.15f) +
              0.20f * bump(x, y - f.nose_tip_y, 0.10f, 0.09f);
      // The nose's soft shadow, away from the lamp.
      ao -=
          0.20f * sq(f.light_azimuth_sin) *
          bump(x + std::copysign(0.155f, f.light_azimuth_sin), y - f.nose_y - 0.07f, 0.07f, 0.12f);
    }
    c = c * mix(Vec3{1, 1, 1}, Vec3{1.06f, 0.74f, 0.70f}, blush);
    if (y > -0.25f && y < 0.42f) {
      ao -= 0.26f * bump(ax - f.eye_x + 0.05f, y - f.eye_y - 0.075f, 0.14f, 0.065f);
      ao -= 0.12f * bump(ax - f.eye_x, y - f.eye_y + 0.085f, 0.13f, 0.035f);
      // Frown lines.
      ao -= 0.22f * std::max(0.0f, f.brow_frown) * bump(ax - 0.040f, y - 0.15f, 0.016f, 0.06f);
    }
    if (y < f.nose_y + 0.25f) {
      ao -= 0.24f * bump(x, y - f.nose_y + 0.045f, 0.11f * f.nose_w, 0.030f);
      ao -= 0.22f * bump(ax - 0.155f * f.nose_w, y - f.nose_y - 0.02f, 0.030f, 0.060f);
      ao -= 0.17f * bump(x, y - f.outer_lower(0) + 0.035f, 0.12f, 0.030f);
      ao -= 0.10f * bump(x, y - f.outer_upper(0) - 0.03f, 0.030f, 0.05f);
      // Folds from the nose to the corners of the mouth, with the smile.
      const float fx = 0.155f + 0.16f * smoothstep(f.nose_y + 0.02f, f.mouth_y, y);
      ao -= (0.05f + 0.26f * smile) * fast_exp(-sq((ax - fx) / 0.028f)) *
            smoothstep(f.nose_y + 0.06f, f.nose_y - 0.03f, y) *
            smoothstep(f.mouth_y - 0.06f, f.mouth_y + 0.03f, y);
      // Nostrils.
      c = c * (1 - 0.80f * bump(ax - 0.052f * f.nose_w, y - f.nose_y - 0.002f, 0.030f * f.nose_w,
                                0.015f));
    }
    m.occlusion = clamp01(ao);
    m.gloss += 0.05f * bump(x, y - f.nose_tip_y - 0.01f, 0.05f, 0.05f) +
               0.03f * bump(x, y - 0.45f, 0.3f, 0.2f);
    // Beard: cheeks, jaw and upper lip, soft at the edges.
    const float beard = f.p[kBeard];
    if (beard > 0.0f && y < 0.05f) {
      const float top = mix(f.nose_y - 0.08f, -0.02f, smoothstep(0.16f, 0.70f, ax));
      const float xm = std::copysign(std::min(ax, f.mouth_w), x);
      const float lip_zone = inside(f.outer_upper(xm) + 0.012f - y, 0.02f) *
                             inside(y - f.outer_lower(xm) + 0.012f, 0.02f) *
                             smoothstep(f.mouth_w + 0.05f, f.mouth_w, ax);
      float cover = smoothstep(top + 0.02f, top - 0.12f - 0.24f * smoothstep(0.2f, 0.5f, ax), y) *
                    (1 - lip_zone);
      cover *= 1 - 0.55f * bump(ax - 0.13f, y - f.outer_lower(0) + 0.03f, 0.05f, 0.06f);
      const Vec3 tone = mix(f.hair, f.skin, 0.15f) * 0.75f;
      c = mix(c, tone, clamp01(beard * 0.92f * cover));
      m.gloss *= 1 - 0.7f * beard * cover;
      m.warmth *= 1 - 0.7f * beard * cover;
    }

    // Brows: a tapered band along the same curve as the landmarks.
    if (y > -0.10f && y < 0.50f) {
      const float bt = (ax - f.brow(side, 0).x) / (f.brow(side, 1).x - f.brow(side, 0).x);
      if (bt > -0.12f && bt < 1.12f) {
        const float yb = f.brow(side, clamp01(bt)).y;
        const float half = f.brow_half * (1.10f - 0.62f * sq(clamp01(bt))) *
                           smoothstep(-0.10f, 0.10f, bt) * smoothstep(1.08f, 0.86f, bt);
        const float d = std::fabs(y - yb);
        if (d < half + 0.02f && half > 0.001f) {
          const float strand = 1 + 0.10f * std::sin((ax + 0.6f * (y - yb)) * 110);
          const float alpha = smoothstep(half + 0.010f, half - 0.014f, d) * clamp01(half / 0.015f);
          const Vec3 tone = mix(f.hair * 0.55f, f.skin * 0.16f, 0.35f);
          c = mix(c, tone * strand, 0.88f * alpha);
          m.gloss *= 1 - alpha;
          if (alpha > 0.5f) part = kPartBrow;
        }
      }
    }

    // Eyes.
    const float s = (f.eye_x - ax) / f.eye_w;
    if (std::fabs(s) < 1.35f && std::fabs(y - f.eye_y) < 0.22f) {
      const float sc = std::max(-1.0f, std::min(1.0f, s));
      const float up = f.lid_upper(side, sc), low = f.lid_lower(sc);
      const float open = clamp01(f.eye_open[side]);
      if (std::fabs(s) < 1 && y < up && y > low) {
        Shaded e = shade_eye(f, side, ax, y, s, n);
        return e;
      }
      const float out = std::max(0.0f, std::fabs(s) - 1) * f.eye_w;
      // Upper lashes: thicker towards the outer corner, with a small wing.
      const float wing = std::max(0.0f, -s - 1);
      const float d_up = std::sqrt(sq(y - up - wing * 0.05f) + sq(out * 0.8f));
      const float thick = 0.011f + 0.010f * smoothstep(0.9f, -0.9f, s);
      const float lash =
          smoothstep(thick + 0.008f, thick - 0.006f, d_up) * smoothstep(1.25f, 1.0f, std::fabs(s));
      const float d_low = std::sqrt(sq(low - y) + sq(out));
      const float rim =
          0.42f * smoothstep(0.012f, 0.002f, d_low) * smoothstep(1.05f, 0.85f, std::fabs(s)) * open;
      // Crease above the lid: moves down as the lid shuts, and the lid itself shows.
      const float crease =
          f.eye_y + f.eye_up * (1 - sc * sc) + 0.03f + 0.018f - 0.012f * (1 - open);
      const float line =
          fast_exp(-sq((y - crease) / 0.012f)) * smoothstep(1.2f, 0.7f, std::fabs(s));
      m.occlusion *= 1 - 0.30f * line;
      const float lid =
          inside(y - up, 0.01f) * inside(crease - y, 0.02f) * smoothstep(1.1f, 0.8f, std::fabs(s));
      c = c * mix(Vec3{1, 1, 1}, Vec3{0.94f, 0.82f, 0.78f}, lid);
      c = mix(c, f.skin * Vec3{0.55f, 0.30f, 0.28f}, rim);
      c = mix(c, Vec3{0.020f, 0.014f, 0.012f}, 0.95f * lash);
      m.gloss *= 1 - lash;
    }

    // Mouth.
    if (ax < f.mouth_w * 1.15f && y < f.mouth_y + 0.3f && y > f.mouth_y - 0.5f) {
      const float iu = f.inner_upper(x), il = f.inner_lower(x);
      if (y < iu && y > il && ax < f.mouth_wi) return shade_mouth(f, g);
      const float ou = f.outer_upper(x), ol = f.outer_lower(x);
      const float lips = inside(ou - y, 0.008f) * inside(y - ol, 0.008f) *
                         smoothstep(f.mouth_w * 1.01f, f.mouth_w * 0.97f, ax);
      if (lips > 0) {
        const bool upper = y > 0.5f * (iu + il);
        const float u =
            upper ? (y - iu) / (ou - iu + 0.01f) : (il - y) / (il - ol + 0.01f);  // 0 seam, 1 edge
        Vec3 tone = f.lip * (upper ? 0.80f : 1.0f);
        tone = tone * (0.80f + 0.28f * smoothstep(0.0f, 0.5f, u));
        c = mix(c, tone, lips);
        m.gloss = mix(m.gloss, 0.13f * (upper ? 0.5f : 1.0f), lips);
        m.sharpness = 0.35f * lips;
        m.warmth *= 1 - 0.5f * lips;
        m.occlusion = mix(m.occlusion, 1.0f, 0.8f * lips);
        if (lips > 0.5f) part = kPartLips;
      }
      // The dark line between the lips, with shadowed corners.
      const float seam = y > iu ? y - iu : (y < il ? il - y : 0.0f);
      const float line =
          fast_exp(-sq(seam / 0.010f)) * smoothstep(1.06f * f.mouth_w, 0.86f * f.mouth_w, ax);
      c = c * (1 - 0.72f * line);
      m.gloss *= 1 - line;
    }
  }

  // Shadow of the fringe and the curtain; hair roots under the shell.
  if (g.hair > -0.30f) {
    m.occlusion *= 1 - 0.42f * smoothstep(-0.16f, 0.0f, g.hair);
    const float root = smoothstep(-0.01f, 0.05f, g.hair);
    c = mix(c, f.hair * 0.6f, root);
    m.warmth *= 1 - root;
    m.gloss *= 1 - root;
    if (root > 0.5f) part = kPartHair;
  }
  // Underside of the jaw.
  m.occlusion *= mix(0.55f, 1.0f, smoothstep(-0.85f, 0.0f, n.y + 0.35f * n.z));
  return {light_up(f, n, m), part};
}

Shaded shade_hair(const Face& f, const Surface& g) {
  const float a = std::fabs(g.canonical.x), y = g.canonical.y;
  // Locks: low, smooth frequencies that fade at the crown, where columns meet.
  const float crown = smoothstep(1.02f, 0.75f, y);
  const float bend = 1.3f * std::sin(2.5f * y) + 1.5f * f.hair_curl * std::sin(10.0f * y);
  const float lock = 0.55f * std::sin(17 * a + bend) + 0.45f * std::sin(39 * a + 2.0f * y + 1);
  Vec3 c = f.hair * (1 + 0.20f * lock * crown);
  c = c * mix(0.62f, 1.0f, smoothstep(-0.02f, 0.16f, g.hair));  // tips
  c = c * mix(0.80f, 1.0f, smoothstep(-1.5f, 0.2f, y));
  float occlusion = 1;
  if (g.back) occlusion = 0.22f;
  Vec3 n = g.normal;
  n = normalize(
      n + f.rotate({std::cos(17 * a + bend) * std::copysign(0.10f, g.canonical.x) * crown, 0, 0}));
  Vec3 out = light_up(f, n, {c, occlusion, 0.0f, 0, 0.0f});
  // Highlight bands across the strands, as cylinders reflect.
  Vec3 down = f.rotate({0, -1, 0});
  down = normalize(down - g.normal * dot(down, g.normal));
  const float th = dot(down, f.half);
  const float ring = sq(sq(clamp01(1 - th * th)));
  const float band =
      sq(sq(ring)) * (0.75f + 0.25f * lock) * clamp01(dot(g.normal, f.light) + 0.3f) * occlusion;
  out = out + (f.hair * 0.55f + Vec3{0.05f, 0.047f, 0.042f}) * (0.75f * band);
  return {out, kPartHair};
}

}  // namespace

Shaded shade(const Face& f, const Surface& g) {
  switch (g.part) {
    case kPartSkin:
      return shade_skin(f, g);
    case kPartHair:
      return shade_hair(f, g);
    case kPartEar: {
      const Vec3 d = g.canonical;
      const float bowl = bump(d.y - 0.1f, d.z - 0.15f, 0.5f, 0.4f) * smoothstep(0.2f, 0.7f, d.x);
      Material m{f.skin * mix(Vec3{1.0f, 0.86f, 0.82f}, Vec3{0.72f, 0.50f, 0.45f}, bowl),
                 1 - 0.35f * bowl, 0.03f, 0, 1};
      return {light_up(f, g.normal, m), kPartEar};
    }
    default: {
      const float y = g.canonical.y;
      const float collar = -1.36f + 0.10f * (0.5f - 0.5f * g.canonical.z);
      const float worn = inside(collar - y, 0.012f);
      Material m{f.skin, 1, 0.03f, 0, 1};
      m.occlusion = mix(0.40f, 1.0f, smoothstep(-0.80f, -1.45f, y));
      const float seam = fast_exp(-sq((y - collar + 0.045f) / 0.010f));
      m.albedo = mix(m.albedo, f.cloth * (1 - 0.25f * seam), worn);
      m.warmth = 1 - worn;
      m.gloss *= 1 - worn;
      if (worn < 0.5f) m.occlusion *= mix(0.72f, 1.0f, smoothstep(0.0f, 0.05f, y - collar));
      return {light_up(f, g.normal, m), worn > 0.5f ? kPartClothes : kPartNeck};
    }
  }
}

Vec3 shade_background(const Face& f, float u, float v) {
  const float d = sq(u - 0.5f) + sq(v - 0.42f);
  return f.background * (1.12f - 0.85f * d);
}

}  // namespace pyfacelat::face
