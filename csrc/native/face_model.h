// The parametric head: canonical curves (lids, lips, brows, hairline), the deformation that turns
// canonical points into posed 3D points, and the 68 landmarks.
//
// Canonical space is a fixed superellipsoid |x/a|^n + |y/b|^n + |z/c|^n = 1 (x to the right of the
// image, y up, z towards the camera). Shading evaluates curves in canonical (x, y); landmarks are
// points on the same curves pushed through the same deform(), so they are exact by construction.
#pragma once

#include <array>
#include <vector>

#include "face_math.h"

namespace pyfacelat::face {

// Order and names are shared with pyfacelat/procface/params.py, which checks them on import.
enum Parameter : int {
  kYaw,
  kPitch,
  kRoll,
  kJawOpen,
  kSmile,
  kSmileSkew,
  kPucker,
  kBrowRaise,
  kBrowSkew,
  kBrowFrown,
  kEyeOpen,
  kEyeSkew,
  kGazeX,
  kGazeY,
  kFaceWidth,
  kJawWidth,
  kChinLength,
  kNoseWidth,
  kNoseLength,
  kEyeSize,
  kEyeSpacing,
  kBrowThickness,
  kLipFullness,
  kMouthWidth,
  kSkinTone,
  kHairTone,
  kHairHue,
  kIrisColor,
  kHairLength,
  kHairVolume,
  kHairFringe,
  kHairPart,
  kHairCurl,
  kBeard,
  kLipColor,
  kLightAzimuth,
  kLightElevation,
  kBackgroundLight,
  kBackgroundHue,
  kNumParameters
};
extern const char* const kParameterNames[kNumParameters];

constexpr int kNumLandmarks = 68;
constexpr float kHeadA = 0.74f, kHeadB = 1.04f, kHeadC = 0.88f, kHeadN = 2.25f;
constexpr float kWiden = 1.04f;
constexpr float kCameraDistance = 7.0f;  // head units; a long lens, as portrait photographs use

enum Part : uint8_t {
  kPartBackground,
  kPartSkin,
  kPartHair,
  kPartEar,
  kPartNeck,
  kPartClothes,
  kPartEye,
  kPartLips,
  kPartMouth,
  kPartBrow
};

// Everything that depends on the parameters alone.
struct Face {
  std::array<float, kNumParameters> p;
  float rotation[9], body_rotation[9];

  float eye_x, eye_y, eye_w;
  float eye_up, eye_low;  // lid heights above and below the corner line, fully open
  float eye_open[2];      // [0] image left (x < 0), [1] image right; 0 shut, 1 relaxed
  float gaze_x, gaze_y;

  float brow_raise[2], brow_frown, brow_half;
  float nose_y, nose_tip_y, nose_w;

  float mouth_y, mouth_w, mouth_wi;  // half widths of the outer and inner lip curves
  float corner_dy[2];                // height of each corner above the middle
  float smile[2];
  float gap_up, gap_low, lip_up, lip_low, jaw_drop, pucker;

  float hair_length, hair_volume, hair_curl, fringe_y, part_angle, hair_long, ear_scale;

  Vec3 skin, hair, iris, lip, cloth, light, half, background;
  float light_azimuth_sin;

  explicit Face(const double* params);

  float line_y(float x) const;
  float inner_upper(float x) const;
  float inner_lower(float x) const;
  float outer_upper(float x) const;
  float outer_lower(float x) const;
  float drop(float x, float y) const;        // how far the open jaw lowers canonical (x, y)
  float lid_upper(int side, float s) const;  // y of the lid at s in [-1, 1], outer to inner
  float lid_lower(float s) const;
  Vec2 brow(int side, float t) const;   // t = 0 inner end, 1 outer end; |x| returned
  float hairline(float azimuth) const;  // hair grows above this canonical y

  Vec3 deform(Vec3 canonical) const;  // canonical head surface -> unrotated head
  Vec3 rotate(Vec3 v) const;
  Vec3 rotate_body(Vec3 v) const;
  Vec3 pose(Vec3 v) const;  // head space -> camera-aligned space
};

Vec3 canonical_from_xy(float x, float y);  // the front point above (x, y)
Vec3 canonical_from_direction(float azimuth, float elevation);

struct Vertex {
  Vec3 position;    // posed
  Vec3 normal;      // posed, unit
  Vec3 canonical;   // canonical point (head), or part-specific coordinates
  float hair = -1;  // height above the hairline; hair exists where positive
};

struct Mesh {
  Part part;
  int rows, columns;  // a closed grid: the last column coincides with the first
  std::vector<Vertex> vertices;
};

void build_meshes(const Face& face, std::vector<Mesh>& meshes);
void landmarks3d(const Face& face, Vec3 out[kNumLandmarks]);

}  // namespace pyfacelat::face
