# add_room(NAME SOURCES file... [DEPS target...]): the static library tandem_NAME of one room.
# add_room_test(ROOM name [LABEL fast|slow] [DEPS room...]): tests/ROOM/name.cpp as one GoogleTest binary.

add_library(tandem_flags INTERFACE)
target_compile_options(tandem_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wpedantic $<$<BOOL:${TANDEM_WERROR}>:-Werror>>
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Wshadow>)
if(TANDEM_SANITIZE)
  target_compile_options(tandem_flags INTERFACE -fsanitize=${TANDEM_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  target_link_options(tandem_flags INTERFACE -fsanitize=${TANDEM_SANITIZE})
endif()

function(add_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;DEPS" ${ARGN})
  add_library(tandem_${name} STATIC ${ROOM_SOURCES})
  target_include_directories(tandem_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(tandem_${name} PUBLIC ${ROOM_DEPS} PRIVATE tandem_flags)
endfunction()

function(add_room_test room name)
  cmake_parse_arguments(TEST "" "LABEL" "DEPS" ${ARGN})
  if(NOT TEST_LABEL)
    set(TEST_LABEL fast)
  endif()
  add_executable(${room}_${name} ${CMAKE_SOURCE_DIR}/tests/${room}/${name}.cpp)
  target_link_libraries(${room}_${name} PRIVATE tandem_${room} tandem_flags GTest::gtest_main)
  target_include_directories(${room}_${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
  foreach(dep ${TEST_DEPS})
    target_link_libraries(${room}_${name} PRIVATE tandem_${dep})
  endforeach()
  target_compile_definitions(${room}_${name} PRIVATE
    TANDEM_SOURCE_DIR="${CMAKE_SOURCE_DIR}" TANDEM_TEST_DIR="${CMAKE_SOURCE_DIR}/tests")
  add_test(NAME ${room}/${name} COMMAND ${room}_${name})
  set_tests_properties(${room}/${name} PROPERTIES LABELS ${TEST_LABEL} TIMEOUT 300)
  if(TANDEM_SANITIZE)
    # Several times slower; and the address sanitizer's memmem looks at the whole rest of a text for each match.
    set_tests_properties(${room}/${name} PROPERTIES TIMEOUT 1200 ENVIRONMENT ASAN_OPTIONS=intercept_memmem=0)
  endif()
endfunction()
