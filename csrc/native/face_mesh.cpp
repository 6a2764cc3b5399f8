// Grids of vertices: head, hair shell, ears, body. Every grid is symmetric in x, so that a mirrored
// face renders as the mirrored image.
#include "native/face_model.h"

namespace pyfacelat::face {
namespace {

constexpr int kHeadRows = 104, kHeadColumns = 109;
constexpr int kHairRows = 64, kHairColumns = 97;
constexpr int kEarRows = 11, kEarColumns = 17;
constexpr int kBodyRows = 26, kBodyColumns = 49;
constexpr float kPi = 3.14159265358979f;

// n samples of [lo, hi] with the given density, symmetric when the density is.
template <typename Density>
std::vector<float> spread(int n, float lo, float hi, Density density) {
  constexpr int kSteps = 4096;
  std::vector<double> sum(kSteps + 1, 0.0);
  for (int i = 0; i < kSteps; ++i)
    sum[i + 1] = sum[i] + density(lo + (hi - lo) * (i + 0.5f) / kSteps);
  std::vector<float> out(n);
  int j = 0;
  for (int i = 0; i < n; ++i) {
    const double target = sum[kSteps] * i / (n - 1);
    while (j < kSteps - 1 && sum[j + 1] < target) ++j;
    const double part = (target - sum[j]) / (sum[j + 1] - sum[j]);
    out[i] = static_cast<float>(lo + (hi - lo) * (j + part) / kSteps);
  }
  return out;
}

struct HeadGrid {
  std::vector<Vec3> canonical;
  std::vector<float> azimuth;
  HeadGrid() : canonical(kHeadRows * kHeadColumns), azimuth(kHeadRows * kHeadColumns) {
    // Denser in front, and in the bands of the eyes and the mouth, where the surface moves.
    const auto columns = spread(kHeadColumns, -kPi, kPi,
                                [](float a) { return 1 + 4.5f * fast_exp(-sq(a / 0.75f)); });
    const auto rows = spread(kHeadRows, 0.5f * kPi, -0.5f * kPi, [](float e) {
      return 1 + 1.6f * fast_exp(-sq(e / 0.22f)) + 4.0f * fast_exp(-sq((e + 0.72f) / 0.20f));
    });
    for (int r = 0; r < kHeadRows; ++r)
      for (int c = 0; c < kHeadColumns; ++c) {
        canonical[r * kHeadColumns + c] = canonical_from_direction(columns[c], rows[r]);
        const Vec3 v = canonical[r * kHeadColumns + c];
        azimuth[r * kHeadColumns + c] =
            r == 0 || r == kHeadRows - 1 ? columns[c] : std::atan2(v.x, v.z);
      }
  }
};

const HeadGrid& head_grid() {
  static const HeadGrid grid;
  return grid;
}

// Meshes keep their storage from face to face.
void shape_mesh(Mesh& m, Part part, int rows, int columns) {
  m.part = part;
  m.rows = rows;
  m.columns = columns;
  m.vertices.resize(static_cast<size_t>(rows) * columns);
}

// The undeformed hair shell: upper rows on the skull, lower rows on its equator.
constexpr int kHairCap = 40;

struct HairGrid {
  std::vector<float> azimuth;   // [columns]
  std::vector<Vec3> canonical;  // [rows, columns]
  HairGrid() : azimuth(kHairColumns), canonical(kHairRows * kHairColumns) {
    for (int c = 0; c < kHairColumns; ++c) {
      const float u = 2.0f * c / (kHairColumns - 1) - 1;
      azimuth[c] = kPi * (0.72f * u + 0.28f * u * u * u);
      for (int r = 0; r < kHairRows; ++r) {
        const float rise =
            r < kHairCap ? 0.5f * kPi * (1 - static_cast<float>(r) / (kHairCap - 1)) : 0.0f;
        canonical[r * kHairColumns + c] = canonical_from_direction(azimuth[c], rise);
      }
    }
  }
};

const HairGrid& hair_grid() {
  static const HairGrid grid;
  return grid;
}

// Normals from the two grid directions; the first and last columns of every grid coincide.
void grid_normals(Mesh& m) {
  auto at = [&](int r, int c) { return m.vertices[r * m.columns + c].position; };
  for (int r = 0; r < m.rows; ++r)
    for (int c = 0; c < m.columns; ++c) {
      const int up = std::max(r - 1, 0), down = std::min(r + 1, m.rows - 1);
      int left = c - 1, right = c + 1;
      left = left < 0 ? m.columns - 2 : left;
      right = right >= m.columns ? 1 : right;
      const Vec3 n = cross(at(down, c) - at(up, c), at(r, right) - at(r, left));
      m.vertices[r * m.columns + c].normal = normalize(n);
    }
  for (int r : {0, m.rows - 1}) {  // poles have no column direction: average the next row
    if (dot(at(r, 0) - at(r, m.columns / 2), at(r, 0) - at(r, m.columns / 2)) > 1e-8f) continue;
    Vec3 sum{};
    for (int c = 0; c < m.columns - 1; ++c)
      sum = sum + m.vertices[(r == 0 ? 1 : r - 1) * m.columns + c].normal;
    for (int c = 0; c < m.columns; ++c) m.vertices[r * m.columns + c].normal = normalize(sum);
  }
}

void head(const Face& f, Mesh& m) {
  shape_mesh(m, kPartSkin, kHeadRows, kHeadColumns);
  const HeadGrid& grid = head_grid();
  for (size_t i = 0; i < m.vertices.size(); ++i) {
    Vertex& v = m.vertices[i];
    v.canonical = grid.canonical[i];
    v.position = f.pose(f.deform(v.canonical));
    v.hair = v.canonical.y - f.hairline(grid.azimuth[i]);
  }
  grid_normals(m);
}

// The hair shell follows the skull above the ears and hangs straight below them.
void hair(const Face& f, Mesh& m) {
  shape_mesh(m, kPartHair, kHairRows, kHairColumns);
  const HairGrid& grid = hair_grid();
  const float lowest = std::min(-0.80f, -0.10f - 1.55f * f.hair_length) - 0.04f;
  for (int c = 0; c < m.columns; ++c) {
    const float a = grid.azimuth[c];
    const float line = f.hairline(a);
    const float aside = std::fabs(std::sin(a)), back = 0.5f - 0.5f * std::cos(a);
    for (int r = 0; r < m.rows; ++r) {
      Vec3 p = grid.canonical[r * m.columns + c];
      if (r >= kHairCap)
        p.y = lowest * (static_cast<float>(r - kHairCap + 1) / (m.rows - kHairCap));
      const float h = p.y - line;
      // Thin at the hairline: below the ears that is the curtain's front edge, not its lower end.
      const float edge = mix(smoothstep(-0.05f, 0.28f, h), smoothstep(0.92f, 1.40f, std::fabs(a)),
                             smoothstep(0.30f, -0.10f, p.y));
      const float away = std::hypot(p.x, p.z) / 0.8f;  // from the crown, where all columns meet
      const float top = smoothstep(0.0f, 0.9f, p.y);
      float thick =
          0.018f +
          edge * (0.040f + f.hair_volume * (0.11f * top + 0.20f * aside * away * (1 - 0.5f * top)) +
                  0.05f * f.hair_long * (1 - top));
      // Curls: lumps all over, more of them below, and a fuller shape.
      const float lump = std::sin(11 * std::fabs(a) + 1.1f * std::sin(6 * p.y)) *
                         std::sin(9.0f * p.y + 2.0f * std::cos(5 * a));
      thick += f.hair_curl * edge * away * (0.045f + 0.050f * lump);
      const float ring = 1 + thick / 0.80f;
      // Below the ears: short hair hugs the neck, long hair hangs and turns in at its ends.
      const float down = smoothstep(0.0f, -0.9f, p.y);
      const float tuck = 1 - down * mix(0.30f, 0.03f - 0.05f * f.hair_volume, f.hair_long) -
                         0.05f * smoothstep(0.25f, -0.02f, h) * down +
                         0.022f * f.hair_volume * f.hair_long * std::sin(7.0f * p.y) * down;
      Vec3 q = {p.x * ring * tuck, p.y + thick * top + 0.045f * smoothstep(0.55f, 1.04f, p.y),
                p.z * ring * mix(tuck, 1.0f, 0.5f * back)};
      const float temple =
          1 - 0.045f * bump(0, p.y - 0.25f, 1, 0.25f) * smoothstep(-0.1f, 0.4f, p.z);
      q.x *= kWiden * f.p[kFaceWidth] * temple;
      q.z -= 0.02f * back * away;
      Vertex& v = m.vertices[r * m.columns + c];
      v.canonical = {a, p.y, h};
      v.position = f.pose(q);
      v.hair = h;
    }
  }
  grid_normals(m);
}

void ear(const Face& f, float sign, Mesh& m) {
  shape_mesh(m, kPartEar, kEarRows, kEarColumns);
  const float s = f.ear_scale;
  for (int r = 0; r < m.rows; ++r)
    for (int c = 0; c < m.columns; ++c) {
      const float e = 0.5f * kPi * (1 - 2.0f * r / (m.rows - 1));
      const float a = kPi * (2.0f * c / (m.columns - 1) - 1);
      const Vec3 d = {std::cos(e) * std::sin(a), std::sin(e), std::cos(e) * std::cos(a)};
      // A flattened shell, wider above, leaning out and back.
      const float wide = 1 + 0.28f * d.y;
      Vec3 q = {0.045f * d.x * s, 0.165f * d.y, 0.095f * d.z * wide};
      q.x += sign * (0.030f * s * (d.y + 0.4f) + (-d.z) * 0.05f * s);
      q = q + Vec3{sign * (0.735f + 0.05f * (s - 1)), -0.085f, -0.045f};
      q.x *= kWiden * f.p[kFaceWidth];
      Vertex& v = m.vertices[r * m.columns + c];
      v.canonical = {sign * d.x, d.y, d.z};
      v.position = f.pose(q);
    }
  grid_normals(m);
}

void body(const Face& f, Mesh& m) {
  shape_mesh(m, kPartNeck, kBodyRows, kBodyColumns);
  for (int r = 0; r < m.rows; ++r) {
    const float y = mix(-0.55f, -2.4f, static_cast<float>(r) / (m.rows - 1));
    const float flare = smoothstep(-1.12f, -1.72f, y);
    const float rx =
        0.395f + 0.04f * smoothstep(-0.9f, -1.2f, y) + 1.40f * flare * std::sqrt(flare);
    const float rz = 0.37f + 0.24f * flare;
    for (int c = 0; c < m.columns; ++c) {
      const float a = kPi * (2.0f * c / (m.columns - 1) - 1);
      Vertex& v = m.vertices[r * m.columns + c];
      v.canonical = {std::sin(a) * rx, y, std::cos(a)};
      v.position = f.rotate_body(Vec3{rx * std::sin(a), y, rz * std::cos(a) - 0.17f} -
                                 Vec3{0, -0.62f, -0.22f}) +
                   Vec3{0, -0.62f, -0.22f};
    }
  }
  grid_normals(m);
}

}  // namespace

void build_meshes(const Face& face, std::vector<Mesh>& meshes) {
  meshes.resize(5);
  head(face, meshes[0]);
  hair(face, meshes[1]);
  ear(face, -1, meshes[2]);
  ear(face, 1, meshes[3]);
  body(face, meshes[4]);
}

}  // namespace pyfacelat::face
