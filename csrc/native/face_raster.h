// Frame (FFHQ alignment), z-buffer rasteriser and deferred shading.
#pragma once

#include "native/face_model.h"

namespace pyfacelat::face {

// Camera plane -> pixels, chosen from the projected landmarks.
struct Frame {
  float ax, ay, bx, by, ox, oy;  // u = ax * x + ay * y + ox, v = bx * x + by * y + oy, for size 1
  Vec2 apply(Vec2 p) const { return {ax * p.x + ay * p.y + ox, bx * p.x + by * p.y + oy}; }
};

Vec2 project(Vec3 v);  // perspective, y down
Frame ffhq_frame(const Vec2 landmarks[kNumLandmarks]);

constexpr uint32_t kNoTriangle = 0xffffffffu;

struct Sample {
  float depth;        // z of the surface in camera-aligned space; larger is nearer
  uint32_t triangle;  // mesh << 24 | quad << 1 | half
  float b1, b2;       // barycentric weights of the second and third corner
};

struct Surface {  // an interpolated G-buffer entry
  Part part;
  bool back;  // the inside of the hair shell
  Vec3 position, normal, canonical;
  float hair;
};

struct Raster {
  int size = 0;
  std::vector<Sample> samples;
  std::vector<Mesh> meshes;
  void draw(const Face& face, const Frame& frame, int size);
  Surface surface(const Sample& sample) const;
};

struct Shaded {
  Vec3 color;  // linear
  Part part;
};

Shaded shade(const Face& face, const Surface& surface);
Vec3 shade_background(const Face& face, float u, float v);  // u, v in [0, 1], v down

}  // namespace pyfacelat::face
