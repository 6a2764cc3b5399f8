// render_faces(): parameters -> images, landmarks and, on request, the G-buffer. One face a thread.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "native/face_raster.h"
#include "native/module.h"

namespace pyfacelat {
namespace {

namespace py = pybind11;
using namespace face;

// Linear light to 8 bits with a soft shoulder above 0.6 and gamma 2.2, by table over sqrt(x).
struct ToneCurve {
  static constexpr int kSize = 4096;
  static constexpr float kMax = 4.0f;
  float table[kSize + 1];
  ToneCurve() {
    for (int i = 0; i <= kSize; ++i) {
      const double x = kMax * sq(static_cast<float>(i) / kSize);
      const double y = x < 0.6 ? x : 0.6 + 0.4 * (1 - std::exp(-(x - 0.6) / 0.4));
      table[i] = static_cast<float>(255 * std::pow(y, 1 / 2.2));
    }
  }
  float operator()(float x) const {
    const float i = std::sqrt(std::min(std::max(x, 0.0f), kMax - 1e-3f) / kMax) * kSize;
    const int k = static_cast<int>(i);
    return mix(table[k], table[k + 1], i - k);
  }
};

struct Outputs {
  uint8_t* image = nullptr;     // [N, S, S, 3]
  float* landmarks = nullptr;   // [N, 68, 2]
  float* visibility = nullptr;  // [N, 68]
  float* depth = nullptr;       // [N, S, S]
  float* uv = nullptr;          // [N, S, S, 2]
  float* normals = nullptr;     // [N, S, S, 3]
  uint8_t* parts = nullptr;     // [N, S, S]
};

struct Workspace {
  Raster raster;
  std::vector<float> row;
};

Vec2 texture_coordinates(const Surface& g) {
  constexpr float kTurn = 0.15915494f, kHalfTurn = 0.31830989f;
  switch (g.part) {
    case kPartSkin: {
      const Vec3 d = {g.canonical.x / kHeadA, g.canonical.y / kHeadB, g.canonical.z / kHeadC};
      return {0.5f + kTurn * std::atan2(d.x, d.z),
              0.5f - kHalfTurn * std::atan2(d.y, std::hypot(d.x, d.z))};
    }
    case kPartHair:
      return {0.5f + kTurn * g.canonical.x, clamp01(0.5f - 0.25f * g.canonical.y)};
    case kPartEar:
      return {0.5f + kTurn * std::atan2(g.canonical.x, g.canonical.z), 0.5f - 0.5f * g.canonical.y};
    default:
      return {0.5f + kTurn * std::atan2(g.canonical.x, g.canonical.z),
              clamp01(-0.4f * g.canonical.y)};
  }
}

void render_face(const double* params, int size, int supersample, int64_t index, const Outputs& out,
                 Workspace& work) {
  static const ToneCurve tone;
  const Face f(params);
  Vec3 points[kNumLandmarks];
  Vec2 plane[kNumLandmarks];
  landmarks3d(f, points);
  for (int i = 0; i < kNumLandmarks; ++i) plane[i] = project(points[i]);
  const Frame frame = ffhq_frame(plane);
  Vec2 pixel[kNumLandmarks];
  for (int i = 0; i < kNumLandmarks; ++i) {
    const Vec2 q = frame.apply(plane[i]);
    pixel[i] = {q.x * size, q.y * size};
    if (out.landmarks) {
      out.landmarks[(index * kNumLandmarks + i) * 2] = pixel[i].x;
      out.landmarks[(index * kNumLandmarks + i) * 2 + 1] = pixel[i].y;
    }
  }
  if (!out.image && !out.visibility && !out.depth && !out.uv && !out.normals && !out.parts) return;
  build_meshes(f, work.raster.meshes);

  if (out.image || out.visibility) {
    const int fine = size * supersample;
    work.raster.draw(f, frame, fine);
    if (out.visibility) {
      // Visible: in the frame, and nothing nearer than a skin's thickness in front.
      for (int i = 0; i < kNumLandmarks; ++i) {
        const int x = static_cast<int>(std::floor(pixel[i].x * supersample));
        const int y = static_cast<int>(std::floor(pixel[i].y * supersample));
        const bool framed = x >= 0 && y >= 0 && x < fine && y < fine;
        const bool seen = framed && work.raster.samples[static_cast<size_t>(y) * fine + x].depth <=
                                        points[i].z + 0.045f;
        out.visibility[index * kNumLandmarks + i] = seen ? 1.0f : 0.0f;
      }
    }
    if (out.image) {
      const float scale = 1.0f / (supersample * supersample);
      work.row.resize(static_cast<size_t>(size) * 3);
      for (int y = 0; y < size; ++y) {
        std::fill(work.row.begin(), work.row.end(), 0.0f);
        for (int sy = 0; sy < supersample; ++sy) {
          const int fy = y * supersample + sy;
          for (int fx = 0; fx < fine; ++fx) {
            const Sample& s = work.raster.samples[static_cast<size_t>(fy) * fine + fx];
            const Vec3 c = s.triangle == kNoTriangle
                               ? shade_background(f, (fx + 0.5f) / fine, (fy + 0.5f) / fine)
                               : shade(f, work.raster.surface(s)).color;
            float* p = &work.row[static_cast<size_t>(fx / supersample) * 3];
            p[0] += tone(c.x);
            p[1] += tone(c.y);
            p[2] += tone(c.z);
          }
        }
        uint8_t* to = out.image + ((index * size + y) * size) * 3;
        for (int i = 0; i < size * 3; ++i)
          to[i] = static_cast<uint8_t>(std::min(255.0f, work.row[i] * scale + 0.5f));
      }
    }
  }
  if (out.depth || out.uv || out.normals || out.parts) {
    work.raster.draw(f, frame, size);  // at pixel centres: these do not average
    for (int64_t i = 0; i < static_cast<int64_t>(size) * size; ++i) {
      const Sample& s = work.raster.samples[i];
      const int64_t at = index * size * size + i;
      const bool empty = s.triangle == kNoTriangle;
      Surface g{};
      if (!empty) g = work.raster.surface(s);
      if (out.depth) out.depth[at] = empty ? 0.0f : kCameraDistance - s.depth;
      if (out.normals) {
        out.normals[at * 3] = empty ? 0 : g.normal.x;
        out.normals[at * 3 + 1] = empty ? 0 : g.normal.y;
        out.normals[at * 3 + 2] = empty ? 0 : g.normal.z;
      }
      if (out.uv) {
        const Vec2 t = empty ? Vec2{} : texture_coordinates(g);
        out.uv[at * 2] = t.x;
        out.uv[at * 2 + 1] = t.y;
      }
      if (out.parts) out.parts[at] = empty ? kPartBackground : shade(f, g).part;
    }
  }
}

py::dict render_faces(py::array_t<double, py::array::c_style | py::array::forcecast> params,
                      int size, int supersample, const std::vector<std::string>& outputs,
                      int threads) {
  if (params.ndim() != 2 || params.shape(1) != kNumParameters)
    throw py::value_error("params: expected shape [N, " + std::to_string(kNumParameters) + "]");
  if (size < 1 || size > 4096)
    throw py::value_error("size: expected 1..4096, got " + std::to_string(size));
  if (supersample < 1 || supersample > 8)
    throw py::value_error("supersample: expected 1..8, got " + std::to_string(supersample));
  if (threads < 1) throw py::value_error("threads: expected >= 1, got " + std::to_string(threads));
  const py::ssize_t n = params.shape(0), s = size;
  py::dict result;
  Outputs out;
  auto floats = [&](const std::string& name, std::vector<py::ssize_t> shape) {
    py::array_t<float> array(shape);
    result[name.c_str()] = array;
    return array.mutable_data();
  };
  auto bytes = [&](const std::string& name, std::vector<py::ssize_t> shape) {
    py::array_t<uint8_t> array(shape);
    result[name.c_str()] = array;
    return array.mutable_data();
  };
  for (const std::string& name : outputs) {
    if (name == "image")
      out.image = bytes(name, {n, s, s, 3});
    else if (name == "landmarks")
      out.landmarks = floats(name, {n, kNumLandmarks, 2});
    else if (name == "visibility")
      out.visibility = floats(name, {n, kNumLandmarks});
    else if (name == "depth")
      out.depth = floats(name, {n, s, s});
    else if (name == "uv")
      out.uv = floats(name, {n, s, s, 2});
    else if (name == "normals")
      out.normals = floats(name, {n, s, s, 3});
    else if (name == "parts")
      out.parts = bytes(name, {n, s, s});
    else
      throw py::value_error("outputs: unknown name '" + name + "'");
  }
  const double* data = params.data();
  {
    py::gil_scoped_release release;
    std::atomic<py::ssize_t> next{0};
    std::exception_ptr failure;
    std::mutex failure_lock;
    auto work = [&] {
      try {
        Workspace workspace;
        for (py::ssize_t i; (i = next.fetch_add(1)) < n;)
          render_face(data + i * kNumParameters, size, supersample, i, out, workspace);
      } catch (...) {
        const std::lock_guard<std::mutex> hold(failure_lock);
        if (!failure) failure = std::current_exception();
      }
    };
    std::vector<std::thread> pool;
    const int extra = static_cast<int>(std::min<py::ssize_t>(threads, n)) - 1;
    for (int i = 0; i < extra; ++i) pool.emplace_back(work);
    work();
    for (std::thread& t : pool) t.join();
    if (failure) std::rethrow_exception(failure);
  }
  return result;
}

}  // namespace

void register_faces(pybind11::module_& module) {
  module.def("render_faces", &render_faces, py::arg("params"), py::arg("size"),
             py::arg("supersample"), py::arg("outputs"), py::arg("threads"),
             "Render procedural faces; see pyfacelat.procface.render for the contract.");
  py::list names;
  for (const char* name : kParameterNames) names.append(name);
  module.attr("face_parameter_names") = names;
}

}  // namespace pyfacelat

#ifdef PYFACELAT_FACES_STANDALONE
PYBIND11_MODULE(_native, module) { pyfacelat::register_faces(module); }
#endif
