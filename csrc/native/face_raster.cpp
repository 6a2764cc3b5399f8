// Z-buffer over regular grids: two triangles a cell, samples keep a triangle and its barycentric
// weights, everything else is interpolated once for the visible samples.
#include "native/face_raster.h"

namespace pyfacelat::face {

Vec2 project(Vec3 v) {
  const float s = kCameraDistance / (kCameraDistance - v.z);
  return {v.x * s, -v.y * s};
}

Frame ffhq_frame(const Vec2 p[kNumLandmarks]) {
  auto mean = [&](int from, int to) {
    Vec2 m;
    for (int i = from; i < to; ++i) m = {m.x + p[i].x / (to - from), m.y + p[i].y / (to - from)};
    return m;
  };
  const Vec2 left = mean(36, 42), right = mean(42, 48);
  const Vec2 eyes = {0.5f * (left.x + right.x), 0.5f * (left.y + right.y)};
  const Vec2 e2e = {right.x - left.x, right.y - left.y};
  const Vec2 e2m = {0.5f * (p[48].x + p[54].x) - eyes.x, 0.5f * (p[48].y + p[54].y) - eyes.y};
  Vec2 x = {e2e.x + e2m.y, e2e.y - e2m.x};
  const float length = std::hypot(x.x, x.y);
  const float reach = std::max(2.0f * std::hypot(e2e.x, e2e.y), 1.8f * std::hypot(e2m.x, e2m.y));
  x = {x.x / length, x.y / length};
  const Vec2 c = {eyes.x + 0.1f * e2m.x, eyes.y + 0.1f * e2m.y};
  const float k = 0.5f / reach;  // the quad is c -+ x -+ y with |x| = |y| = reach
  Frame f;
  f.ax = k * x.x, f.ay = k * x.y, f.bx = -k * x.y, f.by = k * x.x;
  f.ox = 0.5f - (f.ax * c.x + f.ay * c.y);
  f.oy = 0.5f - (f.bx * c.x + f.by * c.y);
  return f;
}

namespace {

struct Screen {
  float x, y, z;
};

// The jagged lower edge of locks: a few sines of azimuth, symmetric about the middle.
inline bool hair_hole(float h, float azimuth) {
  if (h > 0.04f) return false;
  const float a = std::fabs(azimuth);
  return h < 0.012f + 0.007f * std::sin(23 * a) + 0.004f * std::sin(41 * a + 1);
}

}  // namespace

void Raster::draw(const Face& face, const Frame& frame, int new_size) {
  size = new_size;
  samples.assign(static_cast<size_t>(size) * size, Sample{-1e9f, kNoTriangle, 0, 0});
  std::vector<Screen> screen;
  for (size_t k = 0; k < meshes.size(); ++k) {
    const Mesh& m = meshes[k];
    const bool shell = m.part == kPartHair;
    screen.resize(m.vertices.size());
    for (size_t i = 0; i < screen.size(); ++i) {
      const Vec3 p = m.vertices[i].position;
      const Vec2 q = frame.apply(project(p));
      screen[i] = {q.x * size - 0.5f, q.y * size - 0.5f, p.z};  // sample centres at integers
    }
    for (int r = 0; r + 1 < m.rows; ++r)
      for (int c = 0; c + 1 < m.columns; ++c) {
        const int i00 = r * m.columns + c;
        const int corner[4] = {i00, i00 + 1, i00 + m.columns, i00 + m.columns + 1};
        if (shell) {
          float highest = -1;
          for (int i : corner) highest = std::max(highest, m.vertices[i].hair);
          if (highest < -0.25f) continue;
        }
        // The diagonal leans the other way on the image's right half, to keep x symmetry.
        const bool flip = c >= (m.columns - 1) / 2;
        const int order[2][2][3] = {{{0, 2, 1}, {1, 2, 3}}, {{0, 2, 3}, {0, 3, 1}}};
        for (int half = 0; half < 2; ++half) {
          const int* o = order[flip][half];
          const Screen &a = screen[corner[o[0]]], &b = screen[corner[o[1]]],
                       &d = screen[corner[o[2]]];
          const float area = (b.x - a.x) * (d.y - a.y) - (b.y - a.y) * (d.x - a.x);
          if (area == 0 || (!shell && area > 0)) continue;
          const int x0 = std::max(0, static_cast<int>(std::ceil(std::min({a.x, b.x, d.x}))));
          const int x1 =
              std::min(size - 1, static_cast<int>(std::floor(std::max({a.x, b.x, d.x}))));
          const int y0 = std::max(0, static_cast<int>(std::ceil(std::min({a.y, b.y, d.y}))));
          const int y1 =
              std::min(size - 1, static_cast<int>(std::floor(std::max({a.y, b.y, d.y}))));
          if (x0 > x1 || y0 > y1) continue;
          const float inv = 1 / area;
          const Vertex &va = m.vertices[corner[o[0]]], &vb = m.vertices[corner[o[1]]],
                       &vd = m.vertices[corner[o[2]]];
          for (int y = y0; y <= y1; ++y)
            for (int x = x0; x <= x1; ++x) {
              const float b1 = ((x - a.x) * (d.y - a.y) - (y - a.y) * (d.x - a.x)) * inv;
              const float b2 = ((b.x - a.x) * (y - a.y) - (b.y - a.y) * (x - a.x)) * inv;
              constexpr float kEps = -1e-5f;  // shared edges are covered twice, never missed
              if (b1 < kEps || b2 < kEps || b1 + b2 > 1 - kEps) continue;
              const float z = a.z + b1 * (b.z - a.z) + b2 * (d.z - a.z);
              Sample& s = samples[static_cast<size_t>(y) * size + x];
              if (z <= s.depth) continue;
              if (shell) {
                float h = va.hair + b1 * (vb.hair - va.hair) + b2 * (vd.hair - va.hair);
                const float az = va.canonical.x + b1 * (vb.canonical.x - va.canonical.x) +
                                 b2 * (vd.canonical.x - va.canonical.x);
                if (h < 0.30f) {  // near the edge a cell is too coarse: ask the curve itself
                  const float hy = va.canonical.y + b1 * (vb.canonical.y - va.canonical.y) +
                                   b2 * (vd.canonical.y - va.canonical.y);
                  h = hy - face.hairline(az);
                }
                if (hair_hole(h, az)) continue;
              }
              s = {z, static_cast<uint32_t>(k << 24 | i00 << 1 | half), b1, b2};
            }
        }
      }
  }
}

Surface Raster::surface(const Sample& s) const {
  const Mesh& m = meshes[s.triangle >> 24];
  const int i00 = (s.triangle & 0xffffff) >> 1, half = s.triangle & 1;
  const int corner[4] = {i00, i00 + 1, i00 + m.columns, i00 + m.columns + 1};
  const bool flip = i00 % m.columns >= (m.columns - 1) / 2;
  const int order[2][2][3] = {{{0, 2, 1}, {1, 2, 3}}, {{0, 2, 3}, {0, 3, 1}}};
  const int* o = order[flip][half];
  const Vertex &a = m.vertices[corner[o[0]]], &b = m.vertices[corner[o[1]]],
               &c = m.vertices[corner[o[2]]];
  const float b0 = 1 - s.b1 - s.b2;
  Surface out;
  out.part = m.part;
  out.position = a.position * b0 + b.position * s.b1 + c.position * s.b2;
  out.normal = normalize(a.normal * b0 + b.normal * s.b1 + c.normal * s.b2);
  out.canonical = a.canonical * b0 + b.canonical * s.b1 + c.canonical * s.b2;
  out.hair = a.hair * b0 + b.hair * s.b1 + c.hair * s.b2;
  out.back = out.normal.z < 0 && m.part == kPartHair;
  if (out.back) out.normal = out.normal * -1.0f;
  return out;
}

}  // namespace pyfacelat::face
