// Run a detector of `detect export --raw`, an ONNX file, with OpenCV 4.6 or later alone: to use and to change.
//     g++ -O2 -std=c++17 -I/usr/include/opencv4 -o detect_opencv detect_opencv.cpp
//         -lopencv_dnn -lopencv_imgcodecs -lopencv_imgproc -lopencv_core
//     ./detect_opencv 0.25 model.onnx photo.jpg
// Prints for each object image, class, score, left, top, right, bottom in pixels of the image, best first.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/dnn.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

const double MAX_IOU = 0.6;     // of two boxes of a class
const int METADATA_PROPS = 14;  // field of ONNX's ModelProto
const size_t MAX_DETECTIONS = 300;
struct Object { cv::Rect2d box; float score; int label; };

// Of two boxes of a class that overlap by more than MAX_IOU, the better one stays; best first.
std::vector<Object> suppress(std::vector<Object> objects) {
    std::stable_sort(objects.begin(), objects.end(), [](auto& a, auto& b) { return a.score > b.score; });
    std::vector<Object> kept;
    for (const Object& one : objects) {
        auto covers = [&](const Object& better) {
            const double shared = (better.box & one.box).area();
            return better.label == one.label && shared > MAX_IOU * (better.box.area() + one.box.area() - shared);
        };
        if (kept.size() < MAX_DETECTIONS && std::none_of(kept.begin(), kept.end(), covers)) kept.push_back(one);
    }
    return kept;
}

// Call visit(number, text) for each field of a protocol buffer that has a length; std::out_of_range if it is none.
template <class Visit> void visit_fields(const std::string& bytes, Visit visit) {
    size_t at = 0;
    auto varint = [&] {
        uint64_t value = 0, byte = 128;
        for (int shift = 0; byte & 128; shift += 7) value |= ((byte = uint8_t(bytes.at(at++))) & 127) << std::min(shift, 63);
        return value;
    };
    while (at < bytes.size()) {
        const uint64_t tag = varint(), kind = tag & 7;
        const uint64_t number = kind == 0 || kind == 2 ? varint() : 0, length = kind == 2 ? number : kind == 1 ? 8 : kind == 5 ? 4 : 0;
        if (length > bytes.size() - at || kind == 3 || kind == 4 || kind > 5) throw std::out_of_range("field");
        if (kind == 2) visit(int(tag >> 3), bytes.substr(at, length));
        at += length;
    }
}

struct Detector {
    explicit Detector(const std::string& path) {
        std::ifstream file(path, std::ios::binary);
        const std::string content(std::istreambuf_iterator<char>(file), {});
        std::map<std::string, std::string> metadata;
        visit_fields(content, [&](int number, const std::string& entry) {
            std::map<int, std::string> pair;  // 1: key, 2: value
            if (number == METADATA_PROPS) visit_fields(entry, [&](int part, const std::string& text) { pair[part] = text; });
            metadata[pair[1]] = pair[2];
        });
        if (metadata["format"] != "detect-onnx-1" || metadata["task"] != "detection") throw std::out_of_range("format");
        std::string text = "{\"end\": 0";  // one object, as OpenCV's reader of JSON wants it
        for (std::string key : {"image_size", "names", "preprocessing", "output"}) text += ", \"" + key + "\": " + metadata[key];
        json.open(text + "}", cv::FileStorage::READ | cv::FileStorage::MEMORY | cv::FileStorage::FORMAT_JSON);
        for (const auto& name : json["names"]) names.push_back(name.string());
        for (const auto& level : json["output"]["levels"]) outputs.push_back(level["name"].string());
        if (outputs.empty()) CV_Error(cv::Error::StsBadArg, "it has boxes inside; export it with --raw");
        network = cv::dnn::readNetFromONNX(content.data(), content.size());
    }

    // Objects of an image, best first; it is as cv::imread gives it: BGR, 8 bits.
    std::vector<Object> detect(const cv::Mat& image, float conf) {
        const cv::FileNode how = json["preprocessing"];
        const double factor = double(int(json["image_size"])) / std::max(image.rows, image.cols);
        const cv::Size size(std::max(1, cvRound(image.cols * factor)), std::max(1, cvRound(image.rows * factor)));
        const auto resize = how[size.area() < image.size().area() ? "interpolation_smaller" : "interpolation_larger"].string();
        const int multiple = int(how["pad_to_multiple_of"]), side = int(how["pad_to_square_of"]);  // one of them is 0
        auto padding = [&](int edge) { return side ? side - edge : (multiple - edge % multiple) % multiple; };
        cv::Mat input;
        cv::resize(image, input, size, 0, 0, resize == "INTER_AREA" ? cv::INTER_AREA : cv::INTER_LINEAR);
        cv::copyMakeBorder(input, input, 0, padding(size.height), 0, padding(size.width), cv::BORDER_CONSTANT,
                           cv::Scalar::all(how["pad_value"].real()));
        std::vector<cv::Mat> maps;
        network.setInput(cv::dnn::blobFromImage(input, 1 / 255., {}, {}, true));
        network.forward(maps, outputs);
        std::vector<Object> objects, found;
        for (size_t at = 0; at < maps.size(); ++at) decode(maps[at], json["output"]["levels"][int(at)], input.size(), conf, objects);
        for (auto [box, score, label] : suppress(objects)) {
            const double x = double(image.cols) / size.width, y = double(image.rows) / size.height;
            box = cv::Rect2d(box.x * x, box.y * y, box.width * x, box.height * y) & cv::Rect2d({}, image.size());
            if (box.area() > 0) found.push_back({box, score, label});
        }
        return found;
    }

    // Append the objects with a score above conf of a map (1, anchors * (5 + classes), rows, columns); see the metadata.
    void decode(const cv::Mat& map, const cv::FileNode& level, cv::Size input, float conf, std::vector<Object>& objects) const {
        const int width = map.size[3], height = map.size[2], area = width * height, classes = int(names.size());
        const double limit = json["output"]["max_log_ratio"].real(), scale = level["xy_scale"].real();
        const std::string offsets = level["offsets"].string(), sizes = level["sizes"].string();
        auto sigmoid = [](double value) { return 1 / (1 + std::exp(-value)); };
        auto exp = [&](double value) { return std::exp(std::min(value, limit)); };
        CV_Assert(map.size[1] == int(level["anchors_px"].size()) * (5 + classes));
        auto values = map.ptr<float>();
        for (const auto& anchor : level["anchors_px"]) {
            for (int place = 0; place < area; ++place) {
                int label = 0;
                auto value = [&](int column) { return double(values[column * area + place]); };
                for (int other = 1; other < classes; ++other) label = value(5 + other) > value(5 + label) ? other : label;
                const float score = float(sigmoid(value(4)) * sigmoid(value(5 + label)));
                if (!(score > conf)) continue;
                auto span = [&](int axis, int index, double cell_px) {  // start and length
                    const double px = anchor[axis].real(), square = std::pow(2 * sigmoid(value(2 + axis)), 2);
                    const double low = exp(value(axis)) - 1, high = exp(value(2 + axis)) - 1, sum = low + high;
                    const double sides = std::max(sum, 0.1 * std::exp(std::min(sum / 0.1, 1.) - 1));
                    const double offset = sizes == "distances" ? 0.5 + (high - low) / 2 * px / cell_px
                        : offsets == "linear" ? value(axis) : scale * (sigmoid(value(axis)) - 0.5) + 0.5;
                    const double length = px * (sizes == "distances" ? sides : sizes == "square" ? square : high + 1);
                    return std::pair((index + offset) * cell_px - length / 2, length);
                };
                const auto [left, wide] = span(0, place % width, double(input.width) / width);
                const auto [top, high] = span(1, place / width, double(input.height) / height);
                objects.push_back({{left, top, wide, high}, score, label});
            }
            values += (5 + classes) * area;
        }
    }

    cv::FileStorage json;
    cv::dnn::Net network;
    std::vector<std::string> names, outputs;
};
int main(int count, char** arguments) try {
    if (count < 4) return std::fprintf(stderr, "usage: detect_opencv MIN_SCORE MODEL IMAGE...\n"), 2;
    cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
    Detector detector(arguments[2]);
    for (char** path = arguments + 3; path < arguments + count; ++path) {
        const cv::Mat image = cv::imread(*path);
        if (image.empty()) std::fprintf(stderr, "%s: cannot be read\n", *path);
        else for (const auto& [box, score, label] : detector.detect(image, float(std::atof(arguments[1]))))
            std::printf("%s %s %.3f %.1f %.1f %.1f %.1f\n", *path, detector.names[label].c_str(), score, box.x, box.y, box.br().x, box.br().y);
    }
} catch (const cv::Exception& error) {
    const int line = int(error.err.find('\n'));  // -1: all of it
    return std::fprintf(stderr, "%s: OpenCV cannot run it: %.*s\n", arguments[2], line, error.err.c_str()), 2;
} catch (const std::exception&) {
    return std::fprintf(stderr, "%s: is not a detector that detect export wrote\n", arguments[2]), 2;
}
